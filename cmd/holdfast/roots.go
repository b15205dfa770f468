package main

// The roots of the web's certificates, for where the system has none: the image
// holds the program and nothing else. Roots that the system has, or that
// SSL_CERT_FILE names, come first. Compiled in rather than copied into the image,
// they are pinned by go.sum, the same in every build, and keep their bounds of
// time, which a file of certificates has no place for.
import _ "golang.org/x/crypto/x509roots/fallback"
