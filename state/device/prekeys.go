package device

import (
	"context"
	"encoding/binary"
	"fmt"
	"sort"

	"go.mau.fi/whatsmeow/util/keys"

	"github.com/holdfast-wa/holdfast/state"
)

// Prekeys are packed, so that 812 of them are some thirty records. Their ids
// come from a counter that only grows and is kept in META, apart from the keys:
// it goes on after a new pairing, a restore, or the loss of the rows. An id that
// came twice would make contacts encrypt to a key that is not there any more.
const (
	preKeyPack = 25
	// maxPreKey is the highest id used. They have 24 bits; libsignal does not
	// remove a key with the highest of these.
	maxPreKey = 1<<24 - 2
	// preKeyReserve is how many ids are reserved at once beyond those needed, so
	// that the counter is not written for each key of a retry receipt.
	preKeyReserve = 32
	preKeyBytes   = 4 + 1 + 32
)

// preKeyID is the id that belongs to a value of the counter, which starts at 1.
func preKeyID(n uint64) uint32 { return uint32((n-1)%maxPreKey) + 1 }

type preKey struct {
	id       uint32
	uploaded bool
	private  [32]byte
}

func (p preKey) key() *keys.PreKey {
	return &keys.PreKey{KeyPair: *keys.NewKeyPairFromPrivateKey(p.private), KeyID: p.id}
}

// pack is the prekeys of one record, in order of id.
type pack []preKey

func encodePack(p pack) []byte {
	b := make([]byte, 0, preKeyBytes*len(p))
	for _, k := range p {
		b = binary.BigEndian.AppendUint32(b, k.id)
		if k.uploaded {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
		b = append(b, k.private[:]...)
	}
	return b
}

func decodePack(b []byte) (pack, error) {
	if len(b)%preKeyBytes != 0 {
		return nil, fmt.Errorf("%w: a pack of prekeys is cut short", state.ErrCorrupt)
	}
	p := make(pack, 0, len(b)/preKeyBytes)
	for ; len(b) > 0; b = b[preKeyBytes:] {
		p = append(p, preKey{binary.BigEndian.Uint32(b), b[4] == 1, [32]byte(b[5:preKeyBytes])})
	}
	return p, nil
}

func (d *Device) packKey(id uint32) state.Key {
	return d.key(state.KindPreKey, fmt.Sprintf("%07d", id/preKeyPack))
}

// packOf reads the pack that a prekey is in.
func (d *Device) packOf(ctx context.Context, u *unit, key state.Key) (pack, error) {
	value, ok, err := d.get(ctx, u, key)
	if err != nil || !ok {
		return nil, err
	}
	p, err := decodePack(value)
	if err != nil {
		return nil, d.fail(err)
	}
	return p, nil
}

// packs reads all packs, as u sees them.
func (d *Device) packs(ctx context.Context, u *unit) (map[state.Key]pack, error) {
	stored, err := d.scan(ctx, state.KindPreKey, "")
	if err != nil {
		return nil, err
	}
	all := make(map[state.Key]pack, len(stored))
	for _, r := range stored {
		if all[r.key], err = decodePack(r.value); err != nil {
			return nil, d.fail(err)
		}
	}
	for _, c := range u.under(state.KindPreKey, "") {
		delete(all, c.key)
		if !c.del {
			if all[c.key], err = decodePack(c.value); err != nil {
				return nil, d.fail(err)
			}
		}
	}
	return all, nil
}

func stagePack(u *unit, key state.Key, p pack) {
	if len(p) == 0 {
		u.stage(change{key: key, del: true})
	} else {
		u.stage(change{key: key, value: encodePack(p)})
	}
}

// generate makes n new prekeys and stages them. Their ids are reserved durably
// first. all are the packs that there are; nil: they are read where needed.
func (d *Device) generate(ctx context.Context, u *unit, all map[state.Key]pack, n int, uploaded bool) ([]preKey, error) {
	complete := all != nil
	if !complete {
		all = make(map[state.Key]pack)
	}
	made := make([]preKey, 0, n)
	changed := make(map[state.Key]bool)
	for len(made) < n {
		if d.preKeyNext == 0 || d.preKeyNext > d.preKeyTop {
			if err := d.reserve(ctx, n-len(made)); err != nil {
				return nil, err
			}
		}
		k := preKey{id: preKeyID(d.preKeyNext), uploaded: uploaded, private: *keys.NewKeyPair().Priv}
		d.preKeyNext++
		key := d.packKey(k.id)
		p, known := all[key]
		if !known && !complete {
			var err error
			if p, err = d.packOf(ctx, u, key); err != nil {
				return nil, err
			}
		}
		at := sort.Search(len(p), func(i int) bool { return p[i].id >= k.id })
		if at < len(p) && p[at].id == k.id {
			all[key] = p
			continue // after 16 million keys, one of the first round is still there
		}
		p = append(p[:at:at], append(pack{k}, p[at:]...)...)
		all[key], changed[key] = p, true
		made = append(made, k)
	}
	for key := range changed {
		stagePack(u, key, all[key])
	}
	return made, nil
}

// reserve raises the counter in META by what is needed and some more.
func (d *Device) reserve(ctx context.Context, n int) error {
	var from, to uint64
	err := d.updateMeta(context.WithoutCancel(ctx), nil, func(m *state.Meta) error {
		from = uint64(m.PreKeyHigh) + 1
		to = uint64(m.PreKeyHigh) + uint64(n)
		if n < preKeyReserve {
			to = uint64(m.PreKeyHigh) + preKeyReserve
		}
		m.PreKeyHigh = uint32(to)
		return nil
	})
	if err != nil {
		return d.fail(fmt.Errorf("reserving prekey ids: %w", err))
	}
	d.preKeyNext, d.preKeyTop = from, to
	return nil
}

// GetOrGenPreKeys returns prekeys that have not been uploaded, in order of id,
// and generates what is missing to count. All are durable when it returns.
func (s *libraryStore) GetOrGenPreKeys(ctx context.Context, count uint32) ([]*keys.PreKey, error) {
	d := s.d
	d.loggedIn()
	var chosen []preKey
	err := d.locked(ctx, func(u *unit) error {
		all, err := d.packs(ctx, u)
		if err != nil {
			return err
		}
		for _, p := range all {
			for _, k := range p {
				if !k.uploaded {
					chosen = append(chosen, k)
				}
			}
		}
		sort.Slice(chosen, func(i, j int) bool { return chosen[i].id < chosen[j].id })
		if len(chosen) >= int(count) {
			chosen = chosen[:count]
			return nil
		}
		made, err := d.generate(ctx, u, all, int(count)-len(chosen), false)
		if err != nil {
			return err
		}
		chosen = append(chosen, made...)
		sort.Slice(chosen, func(i, j int) bool { return chosen[i].id < chosen[j].id })
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([]*keys.PreKey, len(chosen))
	for i, k := range chosen {
		out[i] = k.key()
	}
	return out, nil
}

// GenOnePreKey makes a prekey for a retry receipt, which counts as uploaded.
func (s *libraryStore) GenOnePreKey(ctx context.Context) (*keys.PreKey, error) {
	d := s.d
	var made []preKey
	err := d.locked(ctx, func(u *unit) (err error) {
		made, err = d.generate(ctx, u, nil, 1, true)
		return err
	})
	if err != nil {
		return nil, err
	}
	return made[0].key(), nil
}

// GetPreKey returns nil if there is no such key.
func (s *libraryStore) GetPreKey(ctx context.Context, id uint32) (*keys.PreKey, error) {
	p, err := s.d.packOf(ctx, s.d.unit(ctx), s.d.packKey(id))
	if err != nil {
		return nil, err
	}
	for _, k := range p {
		if k.id == id {
			return k.key(), nil
		}
	}
	return nil, nil
}

func (s *libraryStore) RemovePreKey(ctx context.Context, id uint32) error {
	d := s.d
	return d.locked(ctx, func(u *unit) error {
		key := d.packKey(id)
		p, err := d.packOf(ctx, u, key)
		if err != nil {
			return err
		}
		kept := make(pack, 0, len(p))
		for _, k := range p {
			if k.id != id {
				kept = append(kept, k)
			}
		}
		if len(kept) != len(p) {
			stagePack(u, key, kept)
		}
		return nil
	})
}

// MarkPreKeysAsUploaded marks all keys up to an id.
func (s *libraryStore) MarkPreKeysAsUploaded(ctx context.Context, upToID uint32) error {
	d := s.d
	return d.locked(ctx, func(u *unit) error {
		all, err := d.packs(ctx, u)
		if err != nil {
			return err
		}
		for key, p := range all {
			changed := false
			for i := range p {
				if p[i].id <= upToID && !p[i].uploaded {
					p[i].uploaded, changed = true, true
				}
			}
			if changed {
				stagePack(u, key, p)
			}
		}
		return nil
	})
}

// UploadedPreKeyCount is what the library asks first after each login.
func (s *libraryStore) UploadedPreKeyCount(ctx context.Context) (int, error) {
	d := s.d
	d.loggedIn()
	all, err := d.packs(ctx, d.unit(ctx))
	if err != nil {
		return 0, err
	}
	n := 0
	for _, p := range all {
		for _, k := range p {
			if k.uploaded {
				n++
			}
		}
	}
	return n, nil
}
