// Package emftest reads lines of CloudWatch's embedded metric format as CloudWatch
// does, and refuses what the format's specification does not allow. It shares
// nothing with the package that writes them. The specification:
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
package emftest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Point is one metric as it would be stored. Values are observations at one time.
type Point struct {
	Namespace  string
	Name       string
	Unit       string
	Dimensions map[string]string
	At         time.Time
	Values     []float64
}

// units are those that PutMetricData takes.
var units = []string{"Seconds", "Microseconds", "Milliseconds", "Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes",
	"Bits", "Kilobits", "Megabits", "Gigabits", "Terabits", "Percent", "Count", "Bytes/Second", "Kilobytes/Second",
	"Megabytes/Second", "Gigabytes/Second", "Terabytes/Second", "Bits/Second", "Kilobits/Second", "Megabits/Second",
	"Gigabits/Second", "Terabits/Second", "Count/Second", "None"}

type directive struct {
	Namespace  string
	Dimensions [][]string
	Metrics    []struct {
		Name              string
		Unit              string
		StorageResolution int
	}
}

// Lines reads all lines of a log that are in the format and skips the others, as
// CloudWatch does. An error names the line that claims to be and is not.
func Lines(log []byte) ([]Point, error) {
	var all []Point
	for line := range bytes.Lines(log) {
		var probe struct {
			AWS json.RawMessage `json:"_aws"`
		}
		if json.Unmarshal(line, &probe) != nil || probe.AWS == nil {
			continue
		}
		points, err := Line(line)
		if err != nil {
			return nil, fmt.Errorf("%w: %s", err, line)
		}
		all = append(all, points...)
	}
	return all, nil
}

// Line reads one line.
func Line(line []byte) ([]Point, error) {
	if len(line) > 1<<20 {
		return nil, fmt.Errorf("%d bytes, more than an event has", len(line))
	}
	var root map[string]json.RawMessage
	if err := json.Unmarshal(line, &root); err != nil {
		return nil, fmt.Errorf("not one object of JSON: %w", err)
	}
	var meta struct {
		Timestamp         *int64
		CloudWatchMetrics []directive
	}
	strict := json.NewDecoder(bytes.NewReader(root["_aws"]))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&meta); err != nil {
		return nil, fmt.Errorf("_aws: %w", err)
	}
	if meta.Timestamp == nil || *meta.Timestamp <= 0 {
		return nil, fmt.Errorf("_aws has no Timestamp")
	}
	if len(meta.CloudWatchMetrics) == 0 {
		return nil, fmt.Errorf("_aws has no CloudWatchMetrics")
	}
	var all []Point
	for _, d := range meta.CloudWatchMetrics {
		if len(d.Namespace) == 0 || len(d.Namespace) > 1024 {
			return nil, fmt.Errorf("a namespace of %d characters", len(d.Namespace))
		}
		if len(d.Dimensions) == 0 {
			return nil, fmt.Errorf("no set of dimensions")
		}
		if len(d.Metrics) == 0 || len(d.Metrics) > 100 {
			return nil, fmt.Errorf("%d metrics in one directive", len(d.Metrics))
		}
		for _, set := range d.Dimensions {
			dimensions, err := values(root, set)
			if err != nil {
				return nil, err
			}
			for _, m := range d.Metrics {
				numbers, err := target(root, m.Name)
				if err != nil {
					return nil, err
				}
				if m.Unit != "" && !slices.Contains(units, m.Unit) {
					return nil, fmt.Errorf("%s: %q is no unit", m.Name, m.Unit)
				}
				if m.StorageResolution != 0 && m.StorageResolution != 1 && m.StorageResolution != 60 {
					return nil, fmt.Errorf("%s: a resolution of %d s", m.Name, m.StorageResolution)
				}
				all = append(all, Point{d.Namespace, m.Name, m.Unit, maps.Clone(dimensions), time.UnixMilli(*meta.Timestamp).UTC(), numbers})
			}
		}
	}
	return all, nil
}

// values are those of a set of dimensions, which are text at the root.
func values(root map[string]json.RawMessage, set []string) (map[string]string, error) {
	if len(set) > 30 {
		return nil, fmt.Errorf("a set of %d dimensions", len(set))
	}
	all := map[string]string{}
	for _, name := range set {
		var value string
		if json.Unmarshal(root[name], &value) != nil || value == "" || len(value) > 1024 || len(name) > 250 {
			return nil, fmt.Errorf("dimension %q has no text at the root: %s", name, root[name])
		}
		all[name] = value
	}
	return all, nil
}

// target is the value of a metric: a number, or a list of up to 100.
func target(root map[string]json.RawMessage, name string) ([]float64, error) {
	if name == "" || len(name) > 1024 {
		return nil, fmt.Errorf("a metric's name of %d characters", len(name))
	}
	var one *float64
	if json.Unmarshal(root[name], &one) == nil && one != nil {
		return []float64{*one}, nil
	}
	var list []float64
	if json.Unmarshal(root[name], &list) != nil || len(list) == 0 || len(list) > 100 {
		return nil, fmt.Errorf("%s is neither a number nor a list of up to 100: %.100s", name, root[name])
	}
	return list, nil
}
