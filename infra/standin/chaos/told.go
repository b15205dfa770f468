package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Absolute makes a path of a binary absolute: versitygw changes the working
// folder.
func Absolute(path *string) (err error) {
	*path, err = filepath.Abs(*path)
	return err
}

// Told runs one of the Run functions for a command: in o.Dir, or where that is
// empty in a new folder, which is removed if all went well. It prints the report;
// the error names the findings and where logs and the history are.
func Told(out io.Writer, o Options, run func(Options) (Report, error)) error {
	temporary := o.Dir == ""
	if temporary {
		dir, err := os.MkdirTemp("", "holdfast-chaos-")
		if err != nil {
			return err
		}
		o.Dir = dir
	}
	o.Say = func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	o.Say("seed %d; logs and data are in %s", o.Seed, o.Dir)
	report, err := run(o)
	if err != nil {
		return fmt.Errorf("seed %d: %w; logs are in %s", o.Seed, err, o.Dir)
	}
	report.Write(out)
	if len(report.Findings) > 0 || !temporary {
		b, err := json.MarshalIndent(report, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(o.Dir, "history.json"), b, 0o600); err != nil {
			return err
		}
	}
	if len(report.Findings) > 0 {
		return fmt.Errorf("seed %d: %d findings; logs and the history are in %s", o.Seed, len(report.Findings), o.Dir)
	}
	if temporary {
		return os.RemoveAll(o.Dir)
	}
	return nil
}
