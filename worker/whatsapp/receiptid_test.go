package whatsapp

import (
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

// TestReceiptID: the same receipt has the same id, and any other another one.
func TestReceiptID(t *testing.T) {
	at := time.Unix(1_790_000_000, 0)
	id := receiptID(at, "M1", "read", "1@lid", "1@lid")
	if _, err := ulid.ParseStrict(id); err != nil {
		t.Fatal(err)
	}
	if receiptID(at, "M1", "read", "1@lid", "1@lid") != id {
		t.Error("it is not the same the second time")
	}
	for _, other := range []string{
		receiptID(at, "M2", "read", "1@lid", "1@lid"), receiptID(at, "M1", "delivered", "1@lid", "1@lid"),
		receiptID(at, "M1", "read", "2@lid", "1@lid"), receiptID(at, "M1", "read", "1@lid", "2@lid"),
		receiptID(at.Add(time.Second), "M1", "read", "1@lid", "1@lid"), receiptID(time.Time{}, "M1", "read", "1@lid", "1@lid"),
	} {
		if other == id {
			t.Error("another receipt has the same id")
		}
	}
}
