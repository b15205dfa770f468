package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/awsclient"
	"github.com/holdfast-wa/holdfast/state/dynamo"
	"github.com/holdfast-wa/holdfast/state/seal"
	"github.com/holdfast-wa/holdfast/state/vault"
	"github.com/holdfast-wa/holdfast/worker"
)

// The checks of doctor on what lies in AWS. They change nothing but what
// --create-tables asks for, and the object of its own that the vault's Ping
// writes.

// awsWithin bounds each of them.
const awsWithin = 15 * time.Second

// inAWS lists the settings that name a place in AWS.
func (c Config) inAWS() []Place {
	places := append([]Place{c.State, c.Vault, c.MasterKey}, c.MasterKeysOld...)
	return slices.DeleteFunc(places, func(p Place) bool { return !slices.Contains([]string{"dynamodb", "s3", "awskms"}, p.Scheme) })
}

// aws looks for the credentials and the region that all of it is asked with.
func (d *doctor) aws(ctx context.Context) {
	if len(d.cfg.inAWS()) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, awsWithin)
	defer cancel()
	cfg, err := awsclient.Config(ctx, awsclient.Options{})
	if err != nil {
		d.fault("aws", advised(err))
		return
	}
	d.say("region", levelOK, "", "%s", cfg.Region)
	c, err := cfg.Credentials.Retrieve(ctx)
	switch {
	case err != nil:
		d.say("credentials", levelFail, "give the task a role, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
			"none that can be used: %s", awsclient.Short(err))
	case c.CanExpire && !c.Expires.After(d.now()):
		d.say("credentials", levelFail, "renew them, or give the task a role, whose credentials renew themselves", "expired at %s", c.Expires.UTC().Format(time.RFC3339))
	case c.CanExpire:
		d.say("credentials", levelOK, "", "from %s, until %s", c.Source, c.Expires.UTC().Format(time.RFC3339))
	default:
		d.say("credentials", levelOK, "", "from %s", c.Source)
	}
}

// advised turns the colon before a piece of advice, as the adapters write it, into
// what fault looks for.
func advised(err error) error {
	text := oneLine(err.Error())
	if strings.Contains(text, "; ") {
		return errors.New(text)
	}
	if at := strings.LastIndex(text, ": "); at > 0 {
		text = text[:at] + "; " + text[at+2:]
	}
	return errors.New(text)
}

func (d *doctor) kmsKey(ctx context.Context) {
	const check = "master key"
	m, _, err := masterKey(ctx, d.cfg, func() (string, error) { return "", nil })
	if err != nil {
		d.fault(check, advised(err))
		return
	}
	d.master = m
	ctx, cancel := context.WithTimeout(ctx, awsWithin)
	defer cancel()
	if err := seal.Ping(ctx, m); err != nil {
		d.fault(check, advised(err))
		return
	}
	d.say(check, levelOK, "", "%s wraps and unwraps, bound to its context", d.cfg.MasterKey.Path)
}

func (d *doctor) tables(ctx context.Context) {
	const check = "state"
	store, err := newDynamo(ctx, d.cfg)
	if err != nil {
		d.fault(check, advised(err))
		return
	}
	defer store.Close()
	if d.createTables {
		within, cancel := context.WithTimeout(ctx, 2*time.Minute)
		defer cancel()
		if err := store.Create(within); err != nil {
			d.fault("create tables", advised(err))
			return
		}
		d.say("create tables", levelOK, "have Terraform take them over: it sets backups, deletion protection and tags as well",
			"the tables of %s are there", d.cfg.State)
	}
	ctx, cancel := context.WithTimeout(ctx, awsWithin)
	defer cancel()
	err = store.Reach(ctx)
	if err == nil {
		err = store.Check(ctx)
	}
	if err != nil {
		d.fault(check, err)
		return
	}
	d.say(check, levelOK, "", "the tables of %s are as they should be, and may be read and written", d.cfg.State)
	// What the service's answers say of the time, by this machine's clock.
	d.skew("aws clock", d.now().Sub(store.Now()), "DynamoDB", "AWS refuses what is signed with it")
	d.identity(ctx, store)
	d.fleetKeyset(ctx, store)
}

// identity tells whether the tables are those of their first use. It does not note
// that where it was not noted yet.
func (d *doctor) identity(ctx context.Context, store *dynamo.Store) {
	const check = "identity"
	now, err := store.Identity(ctx)
	if err != nil {
		d.fault(check, advised(err))
		return
	}
	first, since, err := worker.StoredIdentity(ctx, store)
	switch {
	case errors.Is(err, state.ErrNotFound):
		d.say(check, levelOK, "", "the tables have not been used yet")
	case err != nil:
		d.fault(check, advised(err))
	case first != now:
		d.say(check, levelFail, "stop all workers and run holdfast adopt --restored: every session must then be paired anew",
			"the tables were restored from a backup: they are not those of the first use on %s", since.UTC().Format(time.DateOnly))
	default:
		d.say(check, levelOK, "", "the tables are those of the first use on %s", since.UTC().Format(time.DateOnly))
	}
}

// fleetKeyset tells whether the store was made with the master key that is set.
func (d *doctor) fleetKeyset(ctx context.Context, store state.Records) {
	const check = "fleet keyset"
	if d.master == nil {
		return // said already
	}
	with, err := worker.KeysetMaster(ctx, store)
	switch {
	case errors.Is(err, state.ErrNotFound):
		d.say(check, levelOK, "", "will be made at the first start")
	case err != nil:
		d.fault(check, advised(err))
	case with == d.master.ID():
		d.say(check, levelOK, "", "is wrapped with the master key")
	case slices.Contains(d.formerIDs(ctx), with):
		d.say(check, levelWarn, "run holdfast keys rewrap, then take the old key out of master-key-old", "is wrapped with a former master key, %s", with)
	default:
		d.say(check, levelFail, "set master-key to that one, list it in master-key-old after a change of keys, or give this fleet a place of its own",
			"%s belongs to a fleet with another master key, %s", d.cfg.State, with)
	}
}

// formerIDs are the ids of the former master keys.
func (d *doctor) formerIDs(ctx context.Context) (ids []string) {
	for _, p := range d.cfg.MasterKeysOld {
		if m, err := openKey(ctx, d.cfg, p); err == nil {
			ids = append(ids, m.ID())
		}
	}
	return ids
}

func (d *doctor) bucket(ctx context.Context) {
	const check = "vault"
	v, err := newS3(ctx, d.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		d.fault(check, advised(err))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, awsWithin)
	defer cancel()
	if err := v.Ping(ctx); err != nil {
		d.fault(check, advised(err))
		return
	}
	d.say(check, levelOK, "", "%s can be listed, written and read", d.cfg.Vault)
	d.bucketFacts(v.Facts(ctx))
}

// bucketFacts tells what concerns operators. A role that may not look is a
// warning: the vault itself works without.
func (d *doctor) bucketFacts(f vault.BucketFacts) {
	unknown := func(check string, err error) {
		found, do, _ := strings.Cut(advised(err).Error(), "; ")
		d.say(check, levelWarn, do, "%s", found)
	}
	switch {
	case f.VersionsErr != nil:
		unknown("bucket versions", f.VersionsErr)
	case !f.Versions:
		d.say("bucket versions", levelWarn, "turn versioning on", "are not kept: a credential that somebody deletes or overwrites is lost")
	default:
		d.say("bucket versions", levelOK, "", "are kept")
	}
	switch {
	case f.EncryptionErr != nil:
		unknown("bucket encryption", f.EncryptionErr)
	case f.Encryption == "":
		d.say("bucket encryption", levelWarn, "turn default encryption on", "is off; what Holdfast stores is sealed all the same")
	default:
		d.say("bucket encryption", levelOK, "", "is on (%s), besides what Holdfast seals itself", f.Encryption)
	}
	switch {
	case f.PublicErr != nil:
		unknown("bucket access", f.PublicErr)
	case f.Public:
		d.say("bucket access", levelWarn, "block all public access", "is not closed to the public by all four blocks")
	default:
		d.say("bucket access", levelOK, "", "is closed to the public")
	}
}
