package device_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/state/memory"
)

// TestSessionsBegunAtOnce: both sides begin a session before they have heard of the
// other's, and messages cross. Each message is read, whatever the order in which
// the two sides come to read and write: what the library tries on a state that a
// message is not of must not be kept.
func TestSessionsBegunAtOnce(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newWorld(t, memory.New(time.Now))
			us := newContact(t)
			us.dev, us.jid = w.paired().Library(), types.JID{User: "900000001111", Server: types.HiddenUserServer}
			them := newContact(t)
			r := rand.New(rand.NewPCG(seed, 0))
			var toUs, toThem []envelope
			written := 0
			for range 2 { // two each way before anything arrives
				toThem = append(toThem, us.write(them.jid, them.dev, fmt.Sprint("us ", written), fmt.Sprint("us ", written)))
				toUs = append(toUs, them.write(us.jid, us.dev, fmt.Sprint("them ", written), fmt.Sprint("them ", written)))
				written++
			}
			for written < 60 || len(toUs)+len(toThem) > 0 {
				switch n := r.IntN(4); {
				case n == 0 && written < 60:
					toThem = append(toThem, us.write(them.jid, them.dev, fmt.Sprint("us ", written), fmt.Sprint("us ", written)))
					written++
				case n == 1 && written < 60:
					toUs = append(toUs, them.write(us.jid, us.dev, fmt.Sprint("them ", written), fmt.Sprint("them ", written)))
					written++
				case n == 2 && len(toUs) > 0:
					us.read(them.jid, toUs[0])
					toUs = slices.Delete(toUs, 0, 1)
				case n == 3 && len(toThem) > 0:
					them.read(us.jid, toThem[0])
					toThem = slices.Delete(toThem, 0, 1)
				}
			}
			for _, err := range slices.Concat(us.rejected, them.rejected) {
				t.Error(err)
			}
		})
	}
}
