package seal_test

import (
	"runtime"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/seal"
)

// A process holds up to 1,000 keysets, and 4 KiB each is what they may cost.
func TestKeysetsAreSmall(t *testing.T) {
	const n, most = 500, 4 << 10
	keep := make([]*seal.Keyset, n)
	before := heap()
	for i := range keep {
		k, err := seal.NewKeyset()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Seal(seal.Place{Partition: "S/a", Kind: state.KindSignal}, []byte("x")); err != nil {
			t.Fatal(err)
		}
		keep[i] = k
	}
	each := (int64(heap()) - int64(before)) / n
	t.Logf("%d bytes a keyset", each)
	if each > most {
		t.Errorf("a keyset takes %d bytes of heap, at most %d are allowed", each, most)
	}
	runtime.KeepAlive(keep)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkSeal2KB(b *testing.B) {
	k, err := seal.NewKeyset()
	if err != nil {
		b.Fatal(err)
	}
	place, plain := seal.Place{Partition: "S/shop", Kind: state.KindSignal, ID: "abcdefghijklmnopqrstuvwx"}, make([]byte, 2048)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Seal(place, plain); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen2KB(b *testing.B) {
	k, err := seal.NewKeyset()
	if err != nil {
		b.Fatal(err)
	}
	place := seal.Place{Partition: "S/shop", Kind: state.KindSignal, ID: "abcdefghijklmnopqrstuvwx"}
	sealed, err := k.Seal(place, make([]byte, 2048))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Open(place, sealed); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBlind(b *testing.B) {
	k, err := seal.NewKeyset()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		k.Blind("address", "1234567890:12")
	}
}
