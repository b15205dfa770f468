package dynamolocal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// startWithin is how long the process may take to answer; it takes 3 s.
const startWithin = 40 * time.Second

// Options say how to run it. The zero value keeps everything in memory.
type Options struct {
	// Fetch lets it be fetched by npm where it is not in the user's cache.
	// Whoever sets it should know its licence.
	Fetch bool
	// Dir is a folder for its tables, so that they outlive it. Empty: in memory.
	Dir string
}

// Process is one that runs. It ends with Stop, or with the program that started
// it, however that ends. It keeps a database for each access key.
type Process struct {
	URL  string // http, on all addresses of this machine
	life io.Closer
	cmd  *exec.Cmd
}

// Start runs one and waits until it answers. ErrMissing where it would have to
// be fetched first; a Java of 17 or more is needed.
func Start(ctx context.Context, o Options) (*Process, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("java: is not installed: %w; install a Java of 17 or more", err)
	}
	dir, err := folder(o.Fetch)
	if err != nil {
		return nil, err
	}
	for range 3 { // its port may be taken meanwhile
		var p *Process
		if p, err = start(ctx, java, dir, o.Dir); err == nil || ctx.Err() != nil {
			return p, err
		}
	}
	return nil, err
}

// script starts java and kills it when standard input ends. The system closes
// that with the program that started it, however the latter ends.
const script = `"$@" </dev/null & java=$!; cat >/dev/null; kill -9 $java; wait $java`

func start(ctx context.Context, java, dir, data string) (*Process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	where := []string{"-inMemory"}
	if data != "" {
		if where[0], err = filepath.Abs(data); err != nil {
			return nil, err
		}
		where = []string{"-dbPath", where[0]}
	}
	//nolint:gosec // java as it is found, and a folder of the user's own
	cmd := exec.Command("sh", append([]string{"-c", script, "dynamodb-local", java, "-Xms64m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
		"-Djava.library.path=" + filepath.Join(dir, "DynamoDBLocal_lib"), "-jar", filepath.Join(dir, "DynamoDBLocal.jar"),
		"-disableTelemetry", "-port", strconv.Itoa(port)}, where...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DDB_LOCAL_TELEMETRY=0")
	apart(cmd)
	log, err := os.CreateTemp("", "dynamodb-local-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	defer os.Remove(log.Name())
	cmd.Stdout, cmd.Stderr = log, log
	life, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{URL: "http://127.0.0.1:" + strconv.Itoa(port), life: life, cmd: cmd}
	if err := answers(ctx, p.URL); err != nil {
		said, _ := os.ReadFile(log.Name())
		_ = p.Stop()
		return nil, fmt.Errorf("%w; it said: %s", err, said[:min(len(said), 2000)])
	}
	return p, nil
}

// Stop ends it and waits until it is gone.
func (p *Process) Stop() error {
	err := p.life.Close()
	var status *exec.ExitError
	if ended := p.cmd.Wait(); ended != nil && !errors.As(ended, &status) { // it is killed, which is no fault
		err = errors.Join(err, ended)
	}
	return err
}

// answers waits until there is an answer, whatever it is.
func answers(ctx context.Context, url string) error {
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
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
