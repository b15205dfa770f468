package device

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"

	"github.com/petermattis/goid"
	"go.mau.fi/whatsmeow/store"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// appStateKey is the record of an app state sync key.
type appStateKey struct {
	ID          []byte `json:"id"`
	Data        []byte `json:"data"`
	Fingerprint []byte `json:"fingerprint"`
	Timestamp   int64  `json:"timestamp"`
}

func (k appStateKey) library() *store.AppStateSyncKey {
	return &store.AppStateSyncKey{Data: k.Data, Fingerprint: k.Fingerprint, Timestamp: k.Timestamp}
}

func (d *Device) syncKey(id []byte) state.Key {
	return d.key(state.KindAppStateKey, d.blind("sync key", string(id)))
}

func (d *Device) readSyncKey(ctx context.Context, id []byte) (*appStateKey, error) {
	value, ok, err := d.get(ctx, d.unit(ctx), d.syncKey(id))
	if err != nil || !ok {
		return nil, err
	}
	return decodeJSON[appStateKey](d, value)
}

// decodeJSON reads a body that is JSON; what is none poisons the Device.
func decodeJSON[T any](d *Device, value []byte) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(value, v); err != nil {
		return nil, d.fail(fmt.Errorf("%w: the body of a record is not a %T: %w", state.ErrCorrupt, *v, err))
	}
	return v, nil
}

// encodeJSON writes a body. The types are our own and always encode.
func encodeJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("device: encoding: " + err.Error())
	}
	return b
}

// PutAppStateSyncKey stores a key, unless the one that is there is as new.
func (s *libraryStore) PutAppStateSyncKey(ctx context.Context, id []byte, key store.AppStateSyncKey) error {
	d := s.d
	old, err := d.readSyncKey(ctx, id)
	if err != nil || old != nil && old.Timestamp >= key.Timestamp {
		return err
	}
	return d.write(ctx, change{key: d.syncKey(id), early: true, value: encodeJSON(appStateKey{
		ID: id, Data: key.Data, Fingerprint: key.Fingerprint, Timestamp: key.Timestamp})})
}

func (s *libraryStore) GetAppStateSyncKey(ctx context.Context, id []byte) (*store.AppStateSyncKey, error) {
	k, err := s.d.readSyncKey(ctx, id)
	if err != nil || k == nil {
		return nil, err
	}
	return k.library(), nil
}

// syncKeys reads all keys, the newest first.
func (d *Device) syncKeys(ctx context.Context) ([]*appStateKey, error) {
	stored, err := d.scan(ctx, state.KindAppStateKey, "")
	if err != nil {
		return nil, err
	}
	u := d.unit(ctx)
	var all []*appStateKey
	add := func(value []byte) error {
		k, err := decodeJSON[appStateKey](d, value)
		if err == nil {
			all = append(all, k)
		}
		return err
	}
	for _, r := range stored {
		if _, staged := u.peek(r.key); !staged {
			if err := add(r.value); err != nil {
				return nil, err
			}
		}
	}
	for _, c := range u.under(state.KindAppStateKey, "") {
		if err := add(c.value); err != nil {
			return nil, err
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Timestamp > all[j].Timestamp })
	return all, nil
}

func (s *libraryStore) GetLatestAppStateSyncKeyID(ctx context.Context) ([]byte, error) {
	all, err := s.d.syncKeys(ctx)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0].ID, nil
}

func (s *libraryStore) GetAllAppStateSyncKeys(ctx context.Context) ([]*store.AppStateSyncKey, error) {
	all, err := s.d.syncKeys(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]*store.AppStateSyncKey, len(all))
	for i, k := range all {
		out[i] = k.library()
	}
	return out, nil
}

// appStage collects the three calls in which the library stores a patch: the
// version, the MACs removed, the MACs added. They are committed with the third.
// A crash before it leaves the state as it was, and the patch is fetched again.
type appStage struct {
	u         *unit
	goroutine int64
}

// stageOf returns the stage of a collection, nil if there is none.
func (d *Device) stageOf(name string) *unit {
	d.appMu.Lock()
	defer d.appMu.Unlock()
	if s := d.apps[name]; s != nil {
		return s.u
	}
	return nil
}

// takeStage ends the stage of a collection.
func (d *Device) takeStage(name string) *unit {
	d.appMu.Lock()
	defer d.appMu.Unlock()
	s := d.apps[name]
	if s == nil {
		return nil
	}
	delete(d.apps, name)
	return s.u
}

// appGet reads an app state record: staged in a stage, else as get does.
func (d *Device) appGet(ctx context.Context, name string, key state.Key) ([]byte, bool, error) {
	if c, ok := d.stageOf(name).peek(key); ok {
		return c.value, !c.del, d.check()
	}
	return d.get(ctx, d.unit(ctx), key)
}

// appWrite hands a stage's changes on: to the caller's unit or to the store.
func (d *Device) appWrite(ctx context.Context, stage *unit) error {
	if stage == nil {
		return nil
	}
	stage.mu.Lock()
	changes := stage.changes()
	stage.mu.Unlock()
	for i := range changes {
		changes[i].early = true
	}
	if len(changes) > state.MaxItems/2 {
		return d.apply(ctx, changes, journal.Batch{}, false) // too many to ride with a message
	}
	return d.write(ctx, changes...)
}

func (d *Device) versionKey(name string) state.Key {
	return d.key(state.KindAppStateVer, d.blind("collection", name))
}

// PutAppStateVersion stages a version; PutAppStateMutationMACs, which the
// library always calls next, commits it.
func (s *libraryStore) PutAppStateVersion(ctx context.Context, name string, version uint64, hash [128]byte) error {
	d := s.d
	if err := d.check(); err != nil {
		return err
	}
	if err := d.appWrite(ctx, d.takeStage(name)); err != nil {
		return err
	}
	value := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(hash)), version)
	u := newUnit(brief, 0)
	u.stage(change{key: d.versionKey(name), value: append(value, hash[:]...)})
	d.appMu.Lock()
	defer d.appMu.Unlock()
	if d.apps == nil {
		d.apps = make(map[string]*appStage)
	}
	d.apps[name] = &appStage{u, goid.Get()}
	return nil
}

// GetAppStateVersion returns version 0 and an empty hash if there is none.
func (s *libraryStore) GetAppStateVersion(ctx context.Context, name string) (version uint64, hash [128]byte, err error) {
	value, ok, err := s.d.appGet(ctx, name, s.d.versionKey(name))
	if err != nil || !ok {
		return 0, hash, err
	}
	if len(value) != 8+len(hash) {
		return 0, hash, s.d.fail(fmt.Errorf("%w: the version of an app state collection is cut short", state.ErrCorrupt))
	}
	copy(hash[:], value[8:])
	return binary.BigEndian.Uint64(value), hash, nil
}

// DeleteAppStateVersion also drops the collection's MACs. The version goes
// first, so that a crash leaves a collection that is synced anew.
func (s *libraryStore) DeleteAppStateVersion(ctx context.Context, name string) error {
	d := s.d
	if err := d.check(); err != nil {
		return err
	}
	d.takeStage(name)
	buckets, err := d.scan(ctx, state.KindAppStateMAC, d.bucketPrefix(name))
	if err != nil {
		return err
	}
	changes := []change{{key: d.versionKey(name), del: true, early: true}}
	for _, b := range buckets {
		changes = append(changes, change{key: b.key, del: true, early: true})
	}
	if len(changes) > state.MaxItems/2 {
		return d.apply(ctx, changes, journal.Batch{}, false)
	}
	return d.write(ctx, changes...)
}

// MACs are packed by the first byte of the index MAC, which is as good as
// random: a patch rewrites a few buckets, a snapshot at most 256.
func (d *Device) bucketPrefix(name string) string { return d.blind("collection", name) + "." }

func (d *Device) bucketKey(name string, indexMAC []byte) state.Key {
	first := "none"
	if len(indexMAC) > 0 {
		first = hex.EncodeToString(indexMAC[:1])
	}
	return d.key(state.KindAppStateMAC, d.bucketPrefix(name)+first)
}

// mac is one entry of a bucket, of the highest version that there is.
type mac struct {
	version      uint64
	index, value []byte
}

func encodeBucket(macs []mac) []byte {
	var b []byte
	for _, m := range macs {
		b = binary.AppendUvarint(b, m.version)
		b = append(binary.AppendUvarint(b, uint64(len(m.index))), m.index...)
		b = append(binary.AppendUvarint(b, uint64(len(m.value))), m.value...)
	}
	return b
}

func decodeBucket(b []byte) ([]mac, error) {
	corrupt := fmt.Errorf("%w: a bucket of app state MACs is garbled", state.ErrCorrupt)
	number := func() (uint64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false
		}
		b = b[n:]
		return v, true
	}
	field := func() ([]byte, bool) {
		n, ok := number()
		if !ok || n > uint64(len(b)) {
			return nil, false
		}
		f := b[:n:n]
		b = b[n:]
		return f, true
	}
	var macs []mac
	for len(b) > 0 {
		var m mac
		var ok [3]bool
		m.version, ok[0] = number()
		m.index, ok[1] = field()
		m.value, ok[2] = field()
		if !ok[0] || !ok[1] || !ok[2] {
			return nil, corrupt
		}
		macs = append(macs, m)
	}
	return macs, nil
}

func (d *Device) bucket(ctx context.Context, name string, key state.Key) ([]mac, error) {
	value, ok, err := d.appGet(ctx, name, key)
	if err != nil || !ok {
		return nil, err
	}
	macs, err := decodeBucket(value)
	if err != nil {
		return nil, d.fail(err)
	}
	return macs, nil
}

// changeBuckets rewrites the buckets of the given index MACs in the
// collection's stage, or in a new one that is committed at once.
func (d *Device) changeBuckets(ctx context.Context, name string, indexes [][]byte, edit func([]mac, int) []mac) error {
	if err := d.check(); err != nil {
		return err
	}
	stage := d.stageOf(name)
	own := stage == nil
	if own {
		stage = newUnit(brief, 0)
	}
	buckets := make(map[state.Key][]mac)
	var wanted []state.Key
	for _, index := range indexes {
		key := d.bucketKey(name, index)
		if _, again := buckets[key]; !again {
			buckets[key] = nil
			wanted = append(wanted, key)
		}
	}
	have, err := d.getMany(ctx, d.unit(ctx), wanted)
	if err != nil {
		return err
	}
	for _, key := range wanted {
		value := have[key]
		if c, ok := stage.peek(key); ok {
			value = c.value
		}
		if buckets[key], err = decodeBucket(value); err != nil {
			return d.fail(err)
		}
	}
	for i, index := range indexes {
		key := d.bucketKey(name, index)
		buckets[key] = edit(buckets[key], i)
	}
	for _, key := range wanted {
		stage.stage(change{key: key, value: encodeBucket(buckets[key]), del: len(buckets[key]) == 0})
	}
	if own {
		return d.appWrite(ctx, stage)
	}
	return nil
}

func without(macs []mac, index []byte) []mac {
	kept := make([]mac, 0, len(macs)+1)
	for _, m := range macs {
		if !bytes.Equal(m.index, index) {
			kept = append(kept, m)
		}
	}
	return kept
}

func (s *libraryStore) DeleteAppStateMutationMACs(ctx context.Context, name string, indexMACs [][]byte) error {
	if len(indexMACs) == 0 {
		return s.d.check()
	}
	return s.d.changeBuckets(ctx, name, indexMACs, func(macs []mac, i int) []mac {
		return without(macs, indexMACs[i])
	})
}

// PutAppStateMutationMACs adds MACs and commits what is staged of the
// collection. Of several versions of an index the highest is kept, which is the
// only one that is ever asked for.
func (s *libraryStore) PutAppStateMutationMACs(ctx context.Context, name string, version uint64, mutations []store.AppStateMutationMAC) error {
	d := s.d
	if len(mutations) > 0 {
		indexes := make([][]byte, len(mutations))
		for i, m := range mutations {
			indexes[i] = m.IndexMAC
		}
		err := d.changeBuckets(ctx, name, indexes, func(macs []mac, i int) []mac {
			for _, m := range macs {
				if bytes.Equal(m.index, indexes[i]) && m.version > version {
					return macs
				}
			}
			return append(without(macs, indexes[i]), mac{version, indexes[i], mutations[i].ValueMAC})
		})
		if err != nil {
			return err
		}
	}
	if err := d.check(); err != nil {
		return err
	}
	return d.appWrite(ctx, d.takeStage(name))
}

// GetAppStateMutationMAC returns the value MAC of the highest version, nil if
// there is none.
func (s *libraryStore) GetAppStateMutationMAC(ctx context.Context, name string, indexMAC []byte) ([]byte, error) {
	macs, err := s.d.bucket(ctx, name, s.d.bucketKey(name, indexMAC))
	if err != nil {
		return nil, err
	}
	for _, m := range macs {
		if bytes.Equal(m.index, indexMAC) {
			return bytes.Clone(m.value), nil
		}
	}
	return nil, nil
}
