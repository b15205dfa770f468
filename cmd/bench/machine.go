package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// machine prints what the figures were taken on.
func (b *bench) machine() {
	fmt.Fprintf(b.out, "machine: %s, %d cores, %s memory, %s/%s, %s, a write and fsync in %s takes %s\n",
		field("/proc/cpuinfo", "model name"), runtime.NumCPU(), memory(), runtime.GOOS, runtime.GOARCH, runtime.Version(),
		filepath.Dir(b.dir), fsync(b.dir))
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "go.mau.fi/whatsmeow" || m.Path == "modernc.org/sqlite" {
				fmt.Fprintf(b.out, "         %s %s\n", m.Path, m.Version)
			}
		}
	}
	fmt.Fprintln(b.out, "the simulated service runs in a process of its own on the same cores; permessage-deflate is offered by nobody")
}

// field is the first value of a name in a file of lines "name: value".
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func memory() string {
	var kib int64
	if _, err := fmt.Sscan(field("/proc/meminfo", "MemTotal"), &kib); err != nil {
		return "unknown"
	}
	return fmt.Sprintf("%.1f GiB", float64(kib)/(1<<20))
}

// fsync is the median time of one small durable write.
func fsync(dir string) string {
	f, err := os.CreateTemp(dir, "fsync-")
	if err != nil {
		return "unknown"
	}
	defer os.Remove(f.Name())
	defer f.Close()
	took := make([]time.Duration, 51)
	for i := range took {
		began := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return "unknown"
		}
		if err := f.Sync(); err != nil {
			return "unknown"
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[len(took)/2].Round(time.Microsecond).String()
}

// Stats is what a process uses at a moment.
type Stats struct {
	RSS        int64 // bytes
	Heap       int64 // bytes of live objects, as of the last collection
	Spans      int64 // bytes of the spans that hold them
	Stacks     int64 // bytes of goroutines' stacks
	Runtime    int64 // bytes that the runtime keeps for itself, or has not given back
	Goroutines int
	CPU        time.Duration // user and system, since its start
}

// stats looks at this process. With gc it collects first, and gives back what
// is free.
func stats(gc bool) Stats {
	if gc {
		runtime.GC() // finalizers of the first round free for the second
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	bytes := func(n uint64) int64 { return int64(n) }
	return Stats{RSS: rss(&m), Heap: bytes(m.HeapAlloc), Spans: bytes(m.HeapInuse), Stacks: bytes(m.StackInuse),
		Runtime:    bytes(m.Sys - m.HeapReleased - m.HeapInuse - m.StackInuse),
		Goroutines: runtime.NumGoroutine(), CPU: cpuTime()}
}

// rss is the resident memory, or what the runtime holds where the system does
// not tell.
func rss(m *runtime.MemStats) int64 {
	var kib int64
	if _, err := fmt.Sscan(field("/proc/self/status", "VmRSS"), &kib); err == nil {
		return kib << 10
	}
	return int64(m.Sys - m.HeapReleased)
}
