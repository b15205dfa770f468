package dynamotest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// startWithin is how long the process may take to answer; it takes 3 s.
const startWithin = 40 * time.Second

// shared starts the process once.
var shared = sync.OnceValues(func() (string, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return "", fmt.Errorf("java: is not installed: %w; install a Java of 17 or more", err)
	}
	dir, err := fetched()
	if err != nil {
		return "", err
	}
	for range 3 {
		var url string
		if url, err = start(java, dir); err == nil {
			return url, nil
		}
	}
	return "", err
})

// held keeps the pipe open that the process lives by.
var held []io.Closer

// script starts java and kills it when standard input ends. The system closes
// that with the test program, however the latter ends.
const script = `"$@" </dev/null & java=$!; cat >/dev/null; kill -9 $java; wait $java`

func start(java, dir string) (url string, err error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	//nolint:gosec // java as it is found, and a folder of the user's own
	cmd := exec.Command("sh", "-c", script, "dynamodb-local", java, "-Xms64m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
		"-Djava.library.path="+filepath.Join(dir, "DynamoDBLocal_lib"), "-jar", filepath.Join(dir, "DynamoDBLocal.jar"),
		"-disableTelemetry", "-inMemory", "-port", strconv.Itoa(port))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DDB_LOCAL_TELEMETRY=0")
	log, err := os.CreateTemp("", "dynamodb-local-*.log")
	if err != nil {
		return "", err
	}
	defer log.Close()
	defer os.Remove(log.Name())
	cmd.Stdout, cmd.Stderr = log, log
	life, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	url = "http://127.0.0.1:" + strconv.Itoa(port)
	if err := answers(url); err != nil {
		said, _ := os.ReadFile(log.Name())
		return "", errors.Join(fmt.Errorf("%w; it said: %s", err, said[:min(len(said), 2000)]), life.Close(), cmd.Wait())
	}
	held = append(held, life)
	return url, nil
}

// answers waits until there is an answer, whatever it is.
func answers(url string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	deadline := time.Now().Add(startWithin)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := client.Get(url)
		if err == nil {
			return resp.Body.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("DynamoDB Local: did not answer within %s: %w", startWithin, err)
		}
		<-tick.C
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
