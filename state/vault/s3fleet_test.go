package vault

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
)

// Two fleets in one vault would delete each other's credentials.
func TestOneFleetAVault(t *testing.T) {
	for _, unversioned := range []bool{false, true} {
		ctx := t.Context()
		f := &fakeBucket{unversioned: unversioned}
		v := f.open(t)
		other := f.reopen(t, v)
		for range 2 {
			if err := v.Belong(ctx, "one"); err != nil {
				t.Fatal(err)
			}
			if err := other.Belong(ctx, "one"); err != nil {
				t.Errorf("another process of the fleet: %v", err)
			}
		}
		err := other.Belong(ctx, "two")
		if err == nil || errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "s3://bucket/fleet/one: belongs to another fleet; give each") || strings.Contains(err.Error(), "\n") {
			t.Errorf("another fleet: %v", err)
		}
		if err := other.Seize(ctx, "two"); err != nil {
			t.Fatal(err)
		}
		if err := other.Belong(ctx, "two"); err != nil {
			t.Errorf("after it was seized: %v", err)
		}
		if err := v.Belong(ctx, "one"); err == nil {
			t.Error("the fleet before still has it")
		}
		if err := other.Seize(ctx, "two"); err != nil {
			t.Errorf("seized twice: %v", err)
		}
		if names, err := v.ListObjects(ctx, "shop"); err != nil || len(names) > 0 {
			t.Errorf("the mark is among the objects: %v, %v", names, err)
		}
	}
}

func TestTheMarkThatCannotBeRead(t *testing.T) {
	f := &fakeBucket{}
	v := f.open(t)
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, fleetMark) {
			return false
		}
		refuse(w, http.StatusForbidden, "AccessDenied", "Access Denied")
		return true
	}
	for how, err := range map[string]error{"Belong": v.Belong(t.Context(), "one"), "Seize": v.Seize(t.Context(), "one")} {
		if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "allow s3:PutObject") {
			t.Errorf("%s: %v", how, err)
		}
	}
}

func TestFactsOfABucket(t *testing.T) {
	const (
		sealed = `<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>`
		closed = `<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls><BlockPublicPolicy>true</BlockPublicPolicy><RestrictPublicBuckets>true</RestrictPublicBuckets></PublicAccessBlockConfiguration>`
	)
	answers := func(encryption, public func(http.ResponseWriter)) *fakeBucket {
		return &fakeBucket{before: func(w http.ResponseWriter, r *http.Request) bool {
			switch query := r.URL.Query(); {
			case query.Has("encryption"):
				encryption(w)
			case query.Has("publicAccessBlock"):
				public(w)
			default:
				return false
			}
			return true
		}}
	}
	says := func(text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { _, _ = w.Write([]byte(text)) }
	}
	refuses := func(status int, code string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { refuse(w, status, code, "no") }
	}

	good := answers(says(sealed), says(closed)).open(t).Facts(t.Context())
	if good != (BucketFacts{Versions: true, Encryption: "aws:kms"}) {
		t.Errorf("a good bucket: %+v", good)
	}
	f := answers(refuses(404, "ServerSideEncryptionConfigurationNotFoundError"), refuses(404, "NoSuchPublicAccessBlockConfiguration"))
	f.unversioned = true
	if bad := f.open(t).Facts(t.Context()); bad != (BucketFacts{Public: true}) {
		t.Errorf("a bad bucket: %+v", bad)
	}
	open := strings.Replace(closed, "true", "false", 1)
	if half := answers(says(sealed), says(open)).open(t).Facts(t.Context()); !half.Public {
		t.Errorf("three of four blocks: %+v", half)
	}
	blind := answers(refuses(403, "AccessDenied"), refuses(403, "AccessDenied")).open(t).Facts(t.Context())
	if !strings.Contains(fmt.Sprint(blind.EncryptionErr), "allow s3:GetEncryptionConfiguration") || !strings.Contains(fmt.Sprint(blind.PublicErr), "allow s3:GetBucketPublicAccessBlock") || !blind.Versions {
		t.Errorf("without permissions: %+v", blind)
	}
}
