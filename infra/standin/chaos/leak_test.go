package chaos

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// A secret is found wherever an item can hold it, and nothing else is.
func TestLeaksAreFound(t *testing.T) {
	secrets := []Secret{{"4915550001", "a phone number"}, {"Zebrafish", "a push name"}}
	inJSON, err := json.Marshal(map[string]any{"v": 1, "sealed": []byte(`{"jid":"4915550001:2@s.whatsapp.net"}`)})
	if err != nil {
		t.Fatal(err)
	}
	twice := base64.RawURLEncoding.EncodeToString([]byte(base64.StdEncoding.EncodeToString([]byte("it is zebrafish again"))))
	for name, v := range map[string]types.AttributeValue{
		"text":      &types.AttributeValueMemberS{Value: "ID#4915550001:1"},
		"number":    &types.AttributeValueMemberN{Value: "4915550001"},
		"bytes":     &types.AttributeValueMemberB{Value: []byte("\x00\x01Zebrafish\xff")},
		"set":       &types.AttributeValueMemberSS{Value: []string{"a", "zebrafish"}},
		"numbers":   &types.AttributeValueMemberNS{Value: []string{"1", "4915550001"}},
		"byte sets": &types.AttributeValueMemberBS{Value: [][]byte{{1}, []byte("4915550001")}},
		"list":      &types.AttributeValueMemberL{Value: []types.AttributeValue{&types.AttributeValueMemberS{Value: "x4915550001x"}}},
		"map":       &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{"k": &types.AttributeValueMemberS{Value: "Zebrafish"}}},
		"map key":   &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{"Zebrafish": &types.AttributeValueMemberS{Value: ""}}},
		"in JSON":   &types.AttributeValueMemberB{Value: inJSON},
		"twice":     &types.AttributeValueMemberS{Value: "x " + twice},
	} {
		s := scanner{secrets: secrets}
		s.item("t", map[string]types.AttributeValue{"sk": &types.AttributeValueMemberS{Value: "STATUS"}, "v": v})
		if len(s.leaks) != 1 || s.leaks[0].Where != "table t, a STATUS item, attribute v" {
			t.Errorf("%s: %+v", name, s.leaks)
		}
	}
	s := scanner{secrets: secrets}
	s.item("t", map[string]types.AttributeValue{
		"pk": &types.AttributeValueMemberS{Value: "S#shop"}, "rev": &types.AttributeValueMemberN{Value: "491555000"},
		"v": &types.AttributeValueMemberB{Value: []byte(`{"v":1,"sealed":"AAECAwQFBgcICQoLDA0ODw=="}`)}, "gone": &types.AttributeValueMemberNULL{Value: true}})
	if len(s.leaks) > 0 {
		t.Errorf("nothing is there: %+v", s.leaks)
	}
}

func TestLeaksInFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"w1.log": `{"msg":"of 4915550001"}`, "w2.log": `{"msg":"of …0001"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := scanner{secrets: []Secret{{"4915550001", "a phone number"}}}
	if err := s.files(dir); err != nil {
		t.Fatal(err)
	}
	if len(s.leaks) != 1 || s.leaks[0] != (Leak{"file w1.log", "a phone number"}) || s.items != 2 {
		t.Errorf("%d files: %+v", s.items, s.leaks)
	}
}
