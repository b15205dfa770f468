package alarmtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// wanted is how many workers the alarms are told to expect.
const wanted = 2

// made is a resource that Terraform has made, in a test without AWS.
type made struct {
	Type   string
	Name   string
	Index  any
	Values json.RawMessage
}

// root is a configuration that uses both modules as the examples do.
const root = `
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}

locals {
  state   = { name = "prod", fleet_table_name = "prod-fleet", signal_table_name = "prod-signal" }
  worker  = { cluster_name = "prod", service_name = "prod-worker", log_group_name = "/holdfast/prod/worker" }
  control = { function_name = "prod-control", api_id = "a1b2c3", dead_letter_queue_name = "prod-control-failed" }
}

module "observability" {
  source         = "./modules/observability"
  name           = "prod"
  state          = local.state
  worker         = local.worker
  control        = local.control
  workers_wanted = %d
}

module "autoscaling" {
  source              = "./modules/autoscaling"
  name                = "prod"
  state               = local.state
  worker              = local.worker
  min                 = %d
  max                 = 10
  sessions_per_worker = 100
}
`

const mocked = `
mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-west-1" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-west-1:123456789012:prod-alarms" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-west-1:123456789012:key/0f7b" }
  }
}

run "all" {
  command = apply
}
`

var applied = sync.OnceValues(apply)

// errMissing says what a machine has not.
type errMissing struct{ what string }

func (e errMissing) Error() string { return e.what }

// resources are what the modules make. Where Terraform or the provider cannot be
// had, the test is skipped, or fails if none may be.
func resources(t *testing.T, of string) []made {
	t.Helper()
	all, err := applied()
	var missing errMissing
	switch {
	case errors.As(err, &missing) && os.Getenv("HOLDFAST_REQUIRE_ALL") != "1":
		t.Skip(missing.what)
	case err != nil:
		t.Fatal(err)
	}
	found := slices.DeleteFunc(slices.Clone(all), func(m made) bool { return m.Type != of })
	if len(found) == 0 {
		t.Fatalf("the modules make no %s", of)
	}
	return found
}

// apply has Terraform make the modules with a mocked provider, whose schema is the
// real one's or, where HOLDFAST_TERRAFORM_PROVIDER_DIR names one, a stand-in's.
func apply() ([]made, error) {
	program, err := exec.LookPath("terraform")
	if err != nil {
		return nil, errMissing{"terraform is not installed; get 1.9 or newer"}
	}
	dir, err := os.MkdirTemp("", "alarms-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, module := range []string{"observability", "autoscaling"} {
		if err := copyModule(filepath.Join("..", "modules", module), filepath.Join(dir, "modules", module)); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "tests"), 0o700); err != nil {
		return nil, err
	}
	for name, text := range map[string]string{"main.tf": fmt.Sprintf(root, wanted, wanted), "tests/all.tftest.hcl": mocked} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	env := append(os.Environ(), "CHECKPOINT_DISABLE=1", "TF_IN_AUTOMATION=1", "TF_INPUT=0")
	terraform := func(args ...string) ([]byte, error) {
		cmd := exec.Command(program, args...)
		cmd.Dir, cmd.Env = dir, env
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("terraform %s: %w: %s%s", args[0], err, errs.Bytes(), out.Bytes())
		}
		return out.Bytes(), nil
	}
	if standin := os.Getenv("HOLDFAST_TERRAFORM_PROVIDER_DIR"); standin != "" {
		rc, err := development(dir, standin)
		if err != nil {
			return nil, err
		}
		env = append(env, "TF_CLI_CONFIG_FILE="+rc)
		if _, err := terraform("get"); err != nil {
			return nil, err
		}
	} else if _, err := terraform("init", "-backend=false"); err != nil {
		return nil, errMissing{"the AWS provider cannot be had; HOLDFAST_TERRAFORM_PROVIDER_DIR names a stand-in: " + err.Error()}
	}
	out, err := terraform("test", "-json", "-verbose")
	if err != nil {
		return nil, err
	}
	return stateOf(out)
}

// copyModule copies what belongs to a module, and nothing that Terraform has left in
// its folder.
func copyModule(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext != ".tf" && ext != ".json" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), text, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// development is a configuration of Terraform's by which the provider comes from a
// folder: a built one, or a Go program that is one.
func development(dir, standin string) (rc string, err error) {
	if standin, err = filepath.Abs(standin); err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(standin, "terraform-provider-aws")); err != nil {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "provider", "terraform-provider-aws"), ".")
		build.Dir = standin
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building the provider in %s: %w: %s", standin, err, out)
		}
		standin = filepath.Join(dir, "provider")
	}
	rc = filepath.Join(dir, "terraformrc")
	text := fmt.Sprintf("provider_installation {\n  dev_overrides { \"hashicorp/aws\" = %q }\n  direct {}\n}\n", standin)
	return rc, os.WriteFile(rc, []byte(text), 0o600)
}

// stateOf reads the state out of what a test has told, one message of JSON a line.
func stateOf(out []byte) ([]made, error) {
	type module struct {
		Resources []made   `json:"resources"`
		Children  []module `json:"child_modules"`
	}
	var all []made
	var add func(module)
	add = func(m module) {
		all = append(all, m.Resources...)
		for _, c := range m.Children {
			add(c)
		}
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var message struct {
			State *struct {
				Root module `json:"root_module"`
			} `json:"test_state"`
		}
		if err := json.Unmarshal(lines.Bytes(), &message); err != nil {
			return nil, fmt.Errorf("terraform test: %w: %s", err, lines.Bytes())
		}
		if message.State != nil {
			add(message.State.Root)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("terraform test told of no state: %s", out)
	}
	return all, lines.Err()
}

// alarmsOf are the alarms by what they are about.
func alarmsOf(t *testing.T) map[string]alarm {
	t.Helper()
	all := map[string]alarm{}
	for _, m := range resources(t, "aws_cloudwatch_metric_alarm") {
		a, err := parseAlarm(m.Values)
		if err != nil {
			t.Fatalf("alarm %v: %v", m.Index, err)
		}
		all[fmt.Sprint(m.Index)] = a
		if a.Name != "prod-"+fmt.Sprint(m.Index) || !strings.HasSuffix(a.Description, "/"+fmt.Sprint(m.Index)+".md") {
			t.Errorf("alarm %v is called %s, and %s", m.Index, a.Name, a.Description)
		}
	}
	return all
}
