package device_test

import (
	"context"
	"crypto/sha256"
	"fmt"

	"go.mau.fi/whatsmeow/store"
)

// index is the index MAC of entry i.
func index(i int) []byte {
	sum := sha256.Sum256(fmt.Append(nil, i))
	return sum[:]
}

// putAppState stores a patch that replaces all entries, as the library does.
func putAppState(s store.AppStateStore, version uint64, from, n int) error {
	ctx := context.Background()
	var old [][]byte
	var added []store.AppStateMutationMAC
	for i := range n {
		old = append(old, index(i))
		added = append(added, store.AppStateMutationMAC{IndexMAC: index(from + i), ValueMAC: index(i)})
	}
	if err := s.PutAppStateVersion(ctx, "regular", version, [128]byte{byte(version)}); err != nil {
		return err
	}
	if version > 1 {
		if err := s.DeleteAppStateMutationMACs(ctx, "regular", old); err != nil {
			return err
		}
	}
	return s.PutAppStateMutationMACs(ctx, "regular", version, added)
}
