package main

import "testing"

func TestCapacity(t *testing.T) {
	for _, c := range []struct {
		name  string
		env   []string
		limit int64 // of memory, in bytes
		want  int
	}{
		{"one's own machine", nil, 0, 0},
		{"one's own machine in a container of 1 GiB", nil, 1 << 30, 1548},
		{"a fleet without a limit of memory", []string{"HOLDFAST_STATE=dynamodb:prod"}, 0, 1500},
		{"a fleet in 4 GiB", []string{"HOLDFAST_STATE=dynamodb:prod"}, 4 << 30, 1500},
		{"a fleet in 512 MiB", []string{"HOLDFAST_STATE=dynamodb:prod"}, 512 << 20, 678},
		{"a fleet that logs in slowly", []string{"HOLDFAST_STATE=dynamodb:prod", "HOLDFAST_LOGIN_RATE=2"}, 4 << 30, 150},
		{"less memory than the process itself needs", nil, 64 << 20, 1},
		{"as it is set", []string{"HOLDFAST_STATE=dynamodb:prod", "HOLDFAST_CAPACITY=7"}, 1 << 30, 7},
	} {
		cfg, err := configOf(t, c.env)
		if err != nil {
			t.Fatal(err)
		}
		if got := capacityWith(cfg, c.limit); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
