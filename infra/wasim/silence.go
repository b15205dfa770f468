package wasim

import "go.mau.fi/libsignal/logger"

// silence is libsignal's logger: it prints to stdout unless one is set.
type silence struct{}

func (silence) Debug(string, string)   {}
func (silence) Info(string, string)    {}
func (silence) Warning(string, string) {}
func (silence) Error(string, string)   {}
func (silence) Configure(string)       {}

// That library keeps its logger in a variable without a lock and sets one at
// first use. Only before main is nobody there yet who could use it.
func init() {
	var silent logger.Loggable = silence{}
	logger.Setup(&silent)
}
