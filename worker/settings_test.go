package worker

import (
	"errors"
	"strings"
	"testing"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/deliver/safedial"
	"github.com/holdfast-wa/holdfast/worker/policy"
)

func TestFaultsOfSettingsNameTheirField(t *testing.T) {
	for _, tc := range []struct {
		own   state.SessionSettings
		reach safedial.Policy
		field string // "" for none
	}{
		{state.SessionSettings{Profile: "hasty"}, safedial.Public, "profile"},
		{state.SessionSettings{Override: map[string]string{"monitor-tick": "soon"}}, safedial.Public, "override"},
		{state.SessionSettings{Proxy: "ftp://hush"}, safedial.Public, "proxy"},
		{state.SessionSettings{Proxy: "http://u:hush@169.254.169.254:80"}, safedial.Public, "proxy"},
		{state.SessionSettings{Proxy: "socks5://u:hush@10.0.0.1:1080"}, safedial.Public, ""},
		{state.SessionSettings{WebhookURL: "ftp://hush"}, safedial.Public, "webhookUrl"},
		{state.SessionSettings{WebhookSecret: "hush-hush-hush-hush"}, safedial.Public, "webhookUrl"},
		{state.SessionSettings{WebhookURL: "https://a.test/", WebhookSecret: "hush"}, safedial.Public, "webhookSecret"},
		{state.SessionSettings{WebhookURL: "http://169.254.169.254/hush"}, safedial.Private, "webhookUrl"},
		{state.SessionSettings{WebhookURL: "http://[::ffff:10.0.0.1]/hush"}, safedial.Loopback, "webhookUrl"},
		{state.SessionSettings{WebhookURL: "http://localhost/hush"}, safedial.Public, "webhookUrl"},
		{state.SessionSettings{WebhookURL: "http://localhost/hush"}, safedial.Loopback, ""},
		{state.SessionSettings{WebhookURL: "http://10.0.0.1/hush"}, safedial.Private, ""},
		{state.SessionSettings{WebhookURL: "https://inside.example/hush"}, safedial.Public, ""}, // judged when it is dialled
	} {
		err := CheckSettings(policy.Guide(), tc.reach, tc.own)
		var fault *FieldError
		switch {
		case tc.field == "" && err != nil:
			t.Errorf("%+v: %v", tc.own, err)
		case tc.field != "" && (!errors.As(err, &fault) || fault.Field() != tc.field):
			t.Errorf("%+v: %v, want a fault of %s", tc.own, err, tc.field)
		case err != nil && strings.Contains(err.Error(), "hush"):
			t.Errorf("the error repeats what may be secret: %v", err)
		}
	}
}
