package main

import (
	"testing"
	"time"

	"github.com/holdfast-wa/holdfast/infra/units"
)

// What comes every two seconds comes 1,800 times an hour, wherever the window
// begins and ends; what came a few times only is counted.
func TestHourly(t *testing.T) {
	begin := time.Now()
	var entries []entry
	for i := range 15 {
		entries = append(entries, entry{begin.Add(time.Duration(i)*2*time.Second + 1900*time.Millisecond), "Beat", units.Use{Requests: 1, Write: 2}})
	}
	entries = append(entries, entry{begin, "Get", units.Use{Requests: 1, Read: 1}})
	got := hourly(entries, 30*time.Second)
	if b := got["Beat"]; b != (units.Use{Requests: 1800, Write: 3600}) {
		t.Errorf("beats: %+v", b)
	}
	if g := got["Get"]; g != (units.Use{Requests: 120, Read: 120}) {
		t.Errorf("what came once: %+v", g)
	}
}

// What sessions cost is what was spent without what workers do by the hour.
func TestSessionsShare(t *testing.T) {
	c := counting{alone: byMethod{"Indexed": {Requests: 3600, Read: 1800}}}
	spent := byMethod{"Beat": {Requests: 9}, "Commit": {Requests: 4, Write: 40}, "Indexed": {Requests: 60, Read: 30}}
	got := c.sessions(spent, time.Minute.Hours())
	if len(got) != 1 || got["Commit"].Write != 40 {
		t.Errorf("left is %v", got)
	}
	if s := got.String(); s != "4.0 Commit 40.0w" {
		t.Errorf("it reads %q", s)
	}
}
