package vault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/holdfast-wa/holdfast/state"
)

// fleetMark is the object that says whose vault this is.
const fleetMark = ".holdfast-fleet"

// FleetMark is the text that a shared vault is marked with: it is of a fleet
// alone, by its keyset, and another one for a restored copy of its tables.
func FleetMark(keyset, identity string) string {
	sum := sha256.Sum256([]byte("holdfast fleet\x00" + keyset + "\x00" + identity))
	return hex.EncodeToString(sum[:16]) + "\n"
}

// Belong marks the vault as the one of a fleet, or compares the mark that is
// there. Two fleets in one vault would remove each other's credentials: each
// takes what it has no pointer to for left over. fleet is any text that is the
// fleet's own.
func (v *S3) Belong(ctx context.Context, fleet string) error {
	ctx, cancel := context.WithTimeout(ctx, v.limit)
	defer cancel()
	key := v.path(fleetMark)
	_, err := v.put(ctx, key, []byte(fleet))
	if err == nil {
		return nil
	}
	if !errors.Is(err, state.ErrExists) {
		return v.failure("write into", "s3:PutObject", err)
	}
	body, err := v.get(ctx, key, "")
	switch {
	case errors.Is(err, state.ErrCorrupt):
	case err != nil:
		return v.failure("read from", "s3:GetObject", err)
	case string(body) == fleet:
		return nil
	}
	return fmt.Errorf("vault s3://%s: belongs to another fleet; give each fleet a prefix of its own, or delete the object %s if that fleet is gone for good", v.where(), key)
}

// Seize marks the vault as the one of a fleet, whoever's it was.
func (v *S3) Seize(ctx context.Context, fleet string) error {
	ctx, cancel := context.WithTimeout(ctx, v.limit)
	defer cancel()
	key := v.path(fleetMark)
	for try := 0; ; try++ {
		err := v.Belong(ctx, fleet)
		if err == nil || errors.Is(err, state.ErrUnavailable) || try == tries {
			return err
		}
		versions, err := v.versions(ctx, key)
		if err != nil {
			return v.failure("look into", "s3:ListBucketVersions", err)
		}
		for _, version := range versions {
			if err := v.remove(ctx, key, version); err != nil {
				return v.failure("delete", "s3:DeleteObject and s3:DeleteObjectVersion", err)
			}
		}
	}
}
