package main

import (
	// The time zones, for TZ, where the system has none.
	_ "time/tzdata"

	// The roots of the web's certificates, likewise: the image holds the program and
	// nothing else. Roots that the system has, or that SSL_CERT_FILE names, come
	// first. Compiled in rather than copied into the image, they are pinned by go.sum,
	// the same in every build, and keep their bounds of time, which a file of
	// certificates has no place for.
	_ "golang.org/x/crypto/x509roots/fallback"
)
