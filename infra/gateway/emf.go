package gateway

import (
	"encoding/json"
)

// namespace is that of the metrics in CloudWatch; they have one dimension, Fleet.
const namespace = "Holdfast"

// metric is one value, with CloudWatch's word for its unit.
type metric struct {
	name  string
	value float64
	unit  string
}

// emit writes metrics as one line of CloudWatch's embedded metric format: the log
// is where it takes them from.
func (g *Gateway) emit(metrics ...metric) {
	type definition struct {
		Name string
		Unit string
	}
	type directive struct {
		Namespace  string
		Dimensions [][]string
		Metrics    []definition
	}
	d := directive{Namespace: namespace, Dimensions: [][]string{{"Fleet"}}}
	line := map[string]any{"Fleet": g.cfg.Fleet}
	for _, m := range metrics {
		d.Metrics = append(d.Metrics, definition{m.name, m.unit})
		line[m.name] = m.value
	}
	line["_aws"] = map[string]any{"Timestamp": g.cfg.Now().UnixMilli(), "CloudWatchMetrics": []directive{d}}
	out, err := json.Marshal(line)
	if err == nil {
		_, err = g.cfg.Metrics.Write(append(out, '\n'))
	}
	if err != nil {
		g.cfg.Log.Error("metrics could not be written", "error", err)
	}
}
