package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/holdfast-wa/holdfast/state"
)

const (
	// metadataWithin bounds the look at what ECS tells of the task. It is answered
	// on the same machine; without it a worker starts all the same.
	metadataWithin = 2 * time.Second
	maxMetadata    = 1 << 20
)

// memberInfo is what the fleet is told of this worker.
func memberInfo(ctx context.Context, cfg Config, log *slog.Logger) state.MemberInfo {
	version := buildVersion().Version
	host, _ := os.Hostname() // for people only
	m := state.MemberInfo{Deployment: cfg.Deployment, Task: cfg.Task, Host: host, Version: version,
		Format: state.Format, Capacity: capacity(cfg), Since: time.Now().UTC()}
	if cfg.ecsMetadata != "" && (m.Deployment == "" || m.Task == "") {
		revision, arn, err := ecsTask(ctx, cfg.ecsMetadata)
		if err != nil {
			log.Warn("the ECS task's revision and ARN are not known: set deployment and task, or sessions do not move to a new revision and a stopped task is noticed by its heartbeat only", "error", err)
		}
		if m.Deployment == "" {
			m.Deployment = revision
		}
		if m.Task == "" {
			m.Task = arn
		}
	}
	if m.Deployment == "" {
		m.Deployment = version
	}
	return m
}

// ecsTask asks the task metadata endpoint, version 4, for the task's revision,
// FAMILY:REVISION, and its ARN.
func ecsTask(ctx context.Context, endpoint string) (revision, arn string, err error) {
	ctx, cancel := context.WithTimeout(ctx, metadataWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/task", nil)
	if err != nil {
		return "", "", fmt.Errorf("ECS task metadata: %w", err)
	}
	// Never through a proxy: the address is one of this machine.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", "", fmt.Errorf("ECS task metadata: %w", cause(err))
	}
	defer resp.Body.Close()
	var task struct{ TaskARN, Family, Revision string }
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMetadata))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %s", resp.Status)
	}
	if err == nil {
		err = json.Unmarshal(body, &task)
	}
	if err == nil && (task.TaskARN == "" || task.Family == "" || task.Revision == "") {
		err = fmt.Errorf("the answer names no task")
	}
	if err != nil {
		return "", "", fmt.Errorf("ECS task metadata: %w", err)
	}
	return task.Family + ":" + task.Revision, task.TaskARN, nil
}
