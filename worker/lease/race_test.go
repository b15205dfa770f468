//go:build race

package lease

func init() { detecting = true }
