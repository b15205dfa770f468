package main

import (
	"strings"
	"testing"
)

func TestWhereWebhooksMayLead(t *testing.T) {
	for _, tc := range []struct {
		env  []string
		want string
	}{
		{nil, "loopback"},
		{[]string{"HOLDFAST_STATE=dynamodb:prod", "HOLDFAST_VAULT=s3://b/p", "HOLDFAST_MASTER_KEY=awskms:arn:aws:kms:eu-central-1:1:key/k"}, "false"},
		{[]string{"HOLDFAST_WEBHOOK_ALLOW_PRIVATE=true"}, "true"},
		{[]string{"HOLDFAST_WEBHOOK_ALLOW_PRIVATE=false"}, "false"},
		{[]string{"HOLDFAST_WEBHOOK_ALLOW_PRIVATE=10.1.0.0/16,127.0.0.1"}, "10.1.0.0/16,127.0.0.1/32"},
	} {
		cfg, err := configOf(t, tc.env)
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.WebhookReach.String(); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.env, got, tc.want)
		}
	}
	if _, err := configOf(t, []string{"HOLDFAST_WEBHOOK_ALLOW_PRIVATE=sometimes"}); err == nil || !strings.Contains(err.Error(), "webhook-allow-private") {
		t.Errorf("%v", err)
	}
}
