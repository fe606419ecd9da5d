// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package totp is the Packer provisioner totp. It turns the guest into an image
// whose instances demand an SSH key and a one-time code from their first boot
// on.
//
// # Promises
//
// Prepare reports every mistake of the block at once, each with the path of its
// field, and refuses a plugin that was built without agents.
//
// Provision talks to the guest in six operations, each of them said with its
// time: it probes the guest, uploads the agent and the policy, runs the agent's
// bake, fetches the report, and removes its private directory, also after a
// failure. A communicator that answers nothing is an error, and so is one that
// loses the connection on the way: success is believed only when the agent's end
// was seen and its report is there.
//
// No secret passes through here: TOTP secrets are made on the instances, and a
// policy with a credential is refused.
//
// # Limits
//
// The guest is a Linux system for whose architecture there is an agent, with a
// POSIX shell and mktemp. Whether its distribution can be baked is for the agent
// to say. A bake that is under way when the build is cancelled is not stopped, and
// removes the private directory when it is done.
package totp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/hcl/v2/hcldec"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/agentbin"
)

// Provisioner is the Packer provisioner totp. Its zero value is ready for
// Prepare.
type Provisioner struct {
	config   Config
	policy   []byte // canonical YAML of the image's policy
	channels []cloudinit.Channel
	agents   agents // nil: the embedded ones
}

// agents is where the agents come from: agentbin, or a test's own.
type agents interface {
	Archs() []string
	Agent(goarch string) ([]byte, error)
}

type embedded struct{}

func (embedded) Archs() []string                     { return agentbin.Archs() }
func (embedded) Agent(goarch string) ([]byte, error) { return agentbin.Agent(goarch) }

// ConfigSpec returns what the HCL block may contain.
func (p *Provisioner) ConfigSpec() hcldec.ObjectSpec { return p.config.FlatMapstructure().HCL2Spec() }

// Provision bakes the guest behind comm. The generated data are used for
// execute_command alone, and are never logged: they hold the build's SSH key.
func (p *Provisioner) Provision(ctx context.Context, ui packersdk.Ui, comm packersdk.Communicator, generated map[string]any) (err error) {
	start := time.Now()
	p.warnProvider(ui)
	g, err := p.probe(ctx, ui, comm)
	if err != nil && g == nil {
		return err
	}
	run := &run{Provisioner: p, ui: ui, comm: comm, guest: g, generated: generated}
	defer func() {
		if err = errors.Join(err, run.remove(ctx)); err == nil {
			say(ui, start, "the guest is baked")
		}
	}()
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		run.uploadAgent,
		run.uploadPolicy,
		run.bake,
		run.fetchReport,
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// warnProvider says if no channel of the image is known to bring a card out of the
// machines of the builder's provider. It is a warning, since user-data may name
// another channel.
func (p *Provisioner) warnProvider(ui packersdk.Ui) {
	provider, ok := cloudinit.FindBuilder(p.config.PackerBuilderType)
	if !ok {
		return
	}
	if e := provider.CheckImage(p.channels); e != nil {
		ui.Sayf("totp: warning: %v", e)
	}
}

// run is one provisioning of one guest.
type run struct {
	*Provisioner
	ui        packersdk.Ui
	comm      packersdk.Communicator
	guest     *guest
	generated map[string]any
}

// say tells that a step is done and how long it took.
func say(ui packersdk.Ui, since time.Time, format string, args ...any) {
	ui.Sayf("totp: %s  (%.1fs)", fmt.Sprintf(format, args...), time.Since(since).Seconds())
}
