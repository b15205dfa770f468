package gateway

import "github.com/holdfast-wa/holdfast/infra/emf"

// emit writes metrics as one line: the log is where CloudWatch takes them from.
func (g *Gateway) emit(metrics ...emf.Metric) {
	if err := emf.Write(g.cfg.Metrics, emf.Line{Fleet: g.cfg.Fleet, At: g.cfg.Now(), Metrics: metrics}); err != nil {
		g.cfg.Log.Error("metrics could not be written", "error", err)
	}
}
