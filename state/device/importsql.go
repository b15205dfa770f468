package device

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.mau.fi/whatsmeow/proto/waAdv"
	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/util/keys"
	waLog "go.mau.fi/whatsmeow/util/log"
	_ "modernc.org/sqlite" // the driver that the source is read with

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// sqlDeviceColumns is what the library's SQL store keeps of a device.
const sqlDeviceColumns = `jid, lid, registration_id, noise_key, identity_key, signed_pre_key, signed_pre_key_id,
	signed_pre_key_sig, adv_key, adv_details, adv_account_sig, adv_account_sig_key, adv_device_sig,
	platform, business_name, push_name, facebook_uuid, lid_migration_ts, companion_meta_nonce`

// openSQLStore opens a SQLite database of the library's own store for reading.
func openSQLStore(ctx context.Context, file string) (*sql.DB, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("database %s: %w", file, err)
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", OmitHost: true, Path: file,
		RawQuery: "mode=ro&_pragma=busy_timeout(5000)&_pragma=query_only(1)"}).String())
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", file, err)
	}
	var version int
	if err := db.QueryRowContext(ctx, "SELECT version FROM whatsmeow_version").Scan(&version); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: is none of whatsmeow's SQL store: %w", file, err), db.Close())
	}
	const oldest = 15 // the first with all the columns
	if version < oldest {
		return nil, errors.Join(fmt.Errorf("database %s: has schema %d: open it once with a whatsmeow of schema %d or newer, which upgrades it", file, version, oldest), db.Close())
	}
	return db, nil
}

// ListSQLStore returns the JIDs of the devices in a SQLite database of
// whatsmeow's own store.
func ListSQLStore(ctx context.Context, file string) ([]string, error) {
	db, err := openSQLStore(ctx, file)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	var all []string
	err = eachRow(ctx, db, "SELECT jid FROM whatsmeow_device ORDER BY jid", nil, func(scan func(...any) error) error {
		var jid types.JID
		if err := scan(&jid); err != nil {
			return err
		}
		all = append(all, jid.String())
		return nil
	})
	return all, err
}

// eachRow calls do for each row of a query.
func eachRow(ctx context.Context, db *sql.DB, query string, args []any, do func(scan func(...any) error) error) error {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := do(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// ImportSQLStore takes a device of whatsmeow's own SQLite store over into an
// unpaired session, without a new pairing. The source is read only. Whoever used
// it before must be stopped for good: two clients with one device desynchronise
// its keys. Credentials are stored last, so that an import that fails leaves the
// session unpaired; it can then be tried again.
//
// The LID map of the source is shared by its devices and is taken over whole.
//
// device is its JID, such as 491700000001:12@s.whatsapp.net.
func ImportSQLStore(ctx context.Context, cfg Config, file, device string) error {
	jid, err := types.ParseJID(device)
	if err != nil || jid.IsEmpty() {
		return errors.New("the device is not named by a JID; write it like 491700000001:12@s.whatsapp.net")
	}
	d, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer d.Close()
	if d.Paired() {
		return ErrPaired
	}
	db, err := openSQLStore(ctx, file)
	if err != nil {
		return err
	}
	defer db.Close()
	dev, err := readSQLDevice(ctx, db, jid)
	if err != nil {
		return fmt.Errorf("database %s: %w", file, err)
	}
	in := &importer{d: d, s: &libraryStore{d}, db: db, jid: jid.String()}
	for _, step := range []func(context.Context) error{in.lids, in.signal, in.preKeys, in.appState, in.people, in.messages} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("importing %s: %w", file, err)
		}
	}
	if err := cfg.Journal.Flush(ctx); err != nil {
		return err
	}
	d.attach(dev)
	return dev.Save(ctx)
}

func readSQLDevice(ctx context.Context, db *sql.DB, jid types.JID) (*store.Device, error) {
	var noise, ident, signed, signature []byte
	var fb uuid.NullUUID
	dev := &store.Device{Log: waLog.Noop, SignedPreKey: &keys.PreKey{}, Account: &waAdv.ADVSignedDeviceIdentity{}}
	err := db.QueryRowContext(ctx, "SELECT "+sqlDeviceColumns+" FROM whatsmeow_device WHERE jid=?", jid.String()).Scan(
		&dev.ID, &dev.LID, &dev.RegistrationID, &noise, &ident, &signed, &dev.SignedPreKey.KeyID, &signature,
		&dev.AdvSecretKey, &dev.Account.Details, &dev.Account.AccountSignature, &dev.Account.AccountSignatureKey,
		&dev.Account.DeviceSignature, &dev.Platform, &dev.BusinessName, &dev.PushName, &fb,
		&dev.LIDMigrationTimestamp, &dev.CompanionMetaNonce)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, errors.New("has no such device")
	case err != nil:
		return nil, fmt.Errorf("reading the device: %w", err)
	case len(noise) != 32 || len(ident) != 32 || len(signed) != 32 || len(signature) != 64:
		return nil, fmt.Errorf("%w: the device's keys have wrong lengths", state.ErrCorrupt)
	}
	dev.NoiseKey = keys.NewKeyPairFromPrivateKey([32]byte(noise))
	dev.IdentityKey = keys.NewKeyPairFromPrivateKey([32]byte(ident))
	dev.SignedPreKey.KeyPair = *keys.NewKeyPairFromPrivateKey([32]byte(signed))
	dev.SignedPreKey.Signature = (*[64]byte)(signature)
	dev.FacebookUUID = fb.UUID
	return dev, nil
}

// importer copies one device's tables.
type importer struct {
	d       *Device
	s       *libraryStore
	db      *sql.DB
	jid     string
	waiting []change
}

// add stores a change, with others.
func (in *importer) add(ctx context.Context, c change) error {
	if in.waiting = append(in.waiting, c); len(in.waiting) < state.MaxItems {
		return nil
	}
	return in.flush(ctx)
}

func (in *importer) flush(ctx context.Context) error {
	changes := in.waiting
	in.waiting = nil
	return in.d.apply(ctx, changes, journal.Batch{}, false)
}

func (in *importer) rows(ctx context.Context, query string, do func(scan func(...any) error) error) error {
	var args []any
	if strings.Contains(query, "?") {
		args = []any{in.jid}
	}
	if err := eachRow(ctx, in.db, query, args, do); err != nil {
		return err
	}
	return in.flush(ctx)
}

func (in *importer) lids(ctx context.Context) error {
	var pairs []store.LIDMapping
	err := in.rows(ctx, "SELECT lid, pn FROM whatsmeow_lid_map", func(scan func(...any) error) error {
		m := store.LIDMapping{LID: types.JID{Server: types.HiddenUserServer}, PN: types.JID{Server: types.DefaultUserServer}}
		err := scan(&m.LID.User, &m.PN.User)
		pairs = append(pairs, m)
		return err
	})
	if err != nil {
		return err
	}
	return in.s.PutManyLIDMappings(ctx, pairs)
}

func (in *importer) signal(ctx context.Context) error {
	d := in.d
	for _, table := range []struct {
		kind  state.Kind
		query string
	}{
		{state.KindSignal, "SELECT their_id, session FROM whatsmeow_sessions WHERE our_jid=? AND session IS NOT NULL"},
		{state.KindDevice, "SELECT their_id, identity FROM whatsmeow_identity_keys WHERE our_jid=?"},
	} {
		err := in.rows(ctx, table.query, func(scan func(...any) error) error {
			var address string
			var value []byte
			if err := scan(&address, &value); err != nil {
				return err
			}
			return in.add(ctx, change{key: d.addressKey(table.kind, address), value: value})
		})
		if err != nil {
			return err
		}
	}
	return in.rows(ctx, "SELECT chat_id, sender_id, sender_key FROM whatsmeow_sender_keys WHERE our_jid=?", func(scan func(...any) error) error {
		var group, sender string
		var value []byte
		if err := scan(&group, &sender, &value); err != nil {
			return err
		}
		return in.add(ctx, change{key: d.senderKey(group, sender), value: value})
	})
}

// preKeys keeps the ids, and raises the counter above them first.
func (in *importer) preKeys(ctx context.Context) error {
	packs := make(map[state.Key]pack)
	highest := uint32(0)
	err := in.rows(ctx, "SELECT key_id, key, uploaded FROM whatsmeow_pre_keys WHERE jid=? ORDER BY key_id", func(scan func(...any) error) error {
		var k preKey
		var private []byte
		if err := scan(&k.id, &private, &k.uploaded); err != nil {
			return err
		}
		if len(private) != 32 {
			return fmt.Errorf("%w: prekey %d has %d bytes", state.ErrCorrupt, k.id, len(private))
		}
		k.private = [32]byte(private)
		highest = max(highest, k.id)
		key := in.d.packKey(k.id)
		packs[key] = append(packs[key], k)
		return nil
	})
	if err != nil || len(packs) == 0 {
		return err
	}
	err = in.d.updateMeta(ctx, nil, func(m *state.Meta) error {
		m.PreKeyHigh = max(m.PreKeyHigh, highest)
		return nil
	})
	if err != nil {
		return err
	}
	for key, p := range packs {
		sort.Slice(p, func(i, j int) bool { return p[i].id < p[j].id })
		if err := in.add(ctx, change{key: key, value: encodePack(p)}); err != nil {
			return err
		}
	}
	return in.flush(ctx)
}

func (in *importer) appState(ctx context.Context) error {
	err := in.rows(ctx, "SELECT key_id, key_data, timestamp, fingerprint FROM whatsmeow_app_state_sync_keys WHERE jid=?", func(scan func(...any) error) error {
		var k appStateKey
		if err := scan(&k.ID, &k.Data, &k.Timestamp, &k.Fingerprint); err != nil {
			return err
		}
		return in.add(ctx, change{key: in.d.syncKey(k.ID), value: encodeJSON(k)})
	})
	if err != nil {
		return err
	}
	type collection struct {
		name    string
		version uint64
		hash    []byte
	}
	var all []collection
	err = in.rows(ctx, "SELECT name, version, hash FROM whatsmeow_app_state_version WHERE jid=?", func(scan func(...any) error) error {
		var c collection
		err := scan(&c.name, &c.version, &c.hash)
		all = append(all, c)
		return err
	})
	if err != nil {
		return err
	}
	for _, c := range all {
		if len(c.hash) != 128 {
			return fmt.Errorf("%w: the hash of app state %s has %d bytes", state.ErrCorrupt, c.name, len(c.hash))
		}
		buckets := make(map[state.Key][]mac)
		err := eachRow(ctx, in.db, `SELECT version, index_mac, value_mac FROM whatsmeow_app_state_mutation_macs
			WHERE jid=? AND name=? ORDER BY version`, []any{in.jid, c.name}, func(scan func(...any) error) error {
			var m mac
			if err := scan(&m.version, &m.index, &m.value); err != nil {
				return err
			}
			key := in.d.bucketKey(c.name, m.index)
			buckets[key] = append(without(buckets[key], m.index), m)
			return nil
		})
		if err != nil {
			return err
		}
		for key, macs := range buckets {
			if err := in.add(ctx, change{key: key, value: encodeBucket(macs)}); err != nil {
				return err
			}
		}
		if err := in.flush(ctx); err != nil {
			return err
		}
		if err := in.s.PutAppStateVersion(ctx, c.name, c.version, [128]byte(c.hash)); err != nil {
			return err
		}
		if err := in.s.PutAppStateMutationMACs(ctx, c.name, c.version, nil); err != nil {
			return err
		}
	}
	return nil
}

func (in *importer) people(ctx context.Context) error {
	d := in.d
	err := in.rows(ctx, `SELECT their_jid, COALESCE(first_name, ''), COALESCE(full_name, ''), COALESCE(push_name, ''),
		COALESCE(business_name, ''), COALESCE(redacted_phone, '') FROM whatsmeow_contacts WHERE our_jid=?`, func(scan func(...any) error) error {
		var jid types.JID
		var c contact
		if err := scan(&jid, &c.FirstName, &c.FullName, &c.PushName, &c.BusinessName, &c.RedactedPhone); err != nil {
			return err
		}
		c.JID = jid.String()
		return in.add(ctx, change{key: d.contactKey(jid), value: encodeJSON(c)})
	})
	if err != nil {
		return err
	}
	err = in.rows(ctx, "SELECT chat_jid, muted_until, pinned, archived FROM whatsmeow_chat_settings WHERE our_jid=?", func(scan func(...any) error) error {
		var jid types.JID
		var c chat
		if err := scan(&jid, &c.Muted, &c.Pinned, &c.Archived); err != nil {
			return err
		}
		return in.add(ctx, change{key: d.chatKey(jid), value: encodeJSON(c)})
	})
	if err != nil {
		return err
	}
	err = in.rows(ctx, "SELECT their_jid, token, timestamp, sender_timestamp FROM whatsmeow_privacy_tokens WHERE our_jid=?", func(scan func(...any) error) error {
		var jid types.JID
		var t token
		if err := scan(&jid, &t.Token, &t.Timestamp, &t.Sender); err != nil {
			return err
		}
		return in.add(ctx, change{key: d.tokenKey(jid), value: encodeJSON(t)})
	})
	if err != nil {
		return err
	}
	return in.rows(ctx, "SELECT salt FROM whatsmeow_nct_salt WHERE our_jid=?", func(scan func(...any) error) error {
		var salt []byte
		if err := scan(&salt); err != nil {
			return err
		}
		return in.add(ctx, change{key: d.saltKey(), value: salt})
	})
}

func (in *importer) messages(ctx context.Context) error {
	d := in.d
	now := d.cfg.Now()
	err := in.rows(ctx, "SELECT chat_jid, sender_jid, message_id, key FROM whatsmeow_message_secrets WHERE our_jid=?", func(scan func(...any) error) error {
		var chat, sender types.JID
		var id string
		var key []byte
		if err := scan(&chat, &sender, &id, &key); err != nil {
			return err
		}
		c := d.secretChange(chat, sender, id, key)
		c.absent = false
		return in.add(ctx, c)
	})
	if err != nil {
		return err
	}
	err = in.rows(ctx, "SELECT ciphertext_hash, plaintext, server_timestamp, insert_timestamp FROM whatsmeow_event_buffer WHERE our_jid=?", func(scan func(...any) error) error {
		var hash, plaintext []byte
		var server, inserted int64
		if err := scan(&hash, &plaintext, &server, &inserted); err != nil {
			return err
		}
		if len(hash) != 32 {
			return fmt.Errorf("%w: the hash of a received message has %d bytes", state.ErrCorrupt, len(hash))
		}
		c := d.hashChange(seen{[32]byte(hash), plaintext, time.UnixMilli(inserted), time.Unix(server, 0)}, plaintext != nil)
		if !c.expires.After(now) {
			return nil
		}
		return in.add(ctx, c)
	})
	if err != nil {
		return err
	}
	return in.rows(ctx, "SELECT chat_jid, message_id, format, plaintext, timestamp FROM whatsmeow_retry_buffer WHERE our_jid=?", func(scan func(...any) error) error {
		var chat types.JID
		var id string
		var o outgoing
		var at int64
		if err := scan(&chat, &id, &o.Format, &o.Plaintext, &at); err != nil {
			return err
		}
		expires := time.UnixMilli(at).Add(outgoingLife)
		if !expires.After(now) {
			return nil
		}
		return in.add(ctx, change{key: d.outgoingKey(chat, id), value: encodeJSON(o), expires: expires})
	})
}
