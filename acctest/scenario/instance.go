// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/child"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/vm"
)

// Instance is a server made from the image: its disk, what its user-data say,
// and what this machine has received from it.
type Instance struct {
	People  []*Person
	Disk    string
	Console string // log of all its boots
	Machine *vm.Machine

	lab      *Lab
	token    []byte // enrollment token of the user-data
	dir      string
	uuid     string
	seed     vm.Seed
	receiver *exec.Cmd
	received <-chan error
	codes    map[string]*login.Codes // by the envelope's id
}

// NewInstance makes an instance with a disk of its own. It is not running yet.
func (l *Lab) NewInstance(ctx context.Context, name string, people []*Person) (*Instance, error) {
	i, err := l.instance(name, people)
	if err != nil {
		return nil, err
	}
	return i, vm.NewDisk(ctx, l.Image, i.Disk)
}

// NewServer makes an instance of a seed that was made elsewhere. Nothing on this
// machine receives what it sends: who wants its envelopes has to come by SSH.
func (l *Lab) NewServer(ctx context.Context, name, seedISO string, people []*Person) (*Instance, error) {
	i, err := l.instance(name, people)
	if err != nil {
		return nil, err
	}
	i.seed, i.token = vm.Seed{ISO: seedISO}, nil
	return i, vm.NewDisk(ctx, l.Image, i.Disk)
}

func (l *Lab) instance(name string, people []*Person) (*Instance, error) {
	token := make([]byte, 16)
	_, _ = rand.Read(token) // never fails
	data, err := userData(people, token)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(l.Work, name)
	i := &Instance{
		People:  people,
		token:   token,
		Disk:    filepath.Join(dir, "disk.qcow2"),
		Console: filepath.Join(dir, "console.log"),
		lab:     l,
		dir:     dir,
		uuid:    newUUID(),
		seed:    vm.Seed{InstanceID: "i-" + name, Hostname: name, UserData: data},
		codes:   map[string]*login.Codes{},
	}
	return i, os.Mkdir(dir, 0o700)
}

// Boot starts the instance, and a totpctl that receives what it sends, unless it
// is a [Lab.NewServer].
func (i *Instance) Boot(ctx context.Context) error { return i.boot(ctx, i.seed, false) }

// BootToStay is Boot of a machine and a receiver that go on when this program ends.
func (i *Instance) BootToStay(ctx context.Context) error { return i.boot(ctx, i.seed, true) }

func (i *Instance) boot(ctx context.Context, seed vm.Seed, stay bool) error {
	m, err := vm.Start(ctx, vm.Config{
		Base: i.lab.Base, Disk: i.Disk, Console: i.Console, Seed: seed, UUID: i.uuid,
		Accel: i.lab.Accel, Stay: stay, Report: i.lab.Report,
	})
	if err != nil {
		return err
	}
	i.Machine = m
	if i.seed.ISO != "" {
		return nil
	}
	log, err := os.OpenFile(i.ReceiverLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.Cut()
		return err
	}
	defer log.Close()
	i.receiver = exec.Command(i.lab.totpctl, "receive", "--unix", m.Enroll, "--dir", i.ReceivedDir())
	i.receiver.Stderr = log
	if stay {
		i.receiver.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return i.receiver.Start()
	}
	if i.received, err = child.Start(i.receiver, syscall.SIGTERM); err != nil {
		m.Cut()
	}
	return err
}

// ReceivedDir is where envelopes are.
func (i *Instance) ReceivedDir() string { return filepath.Join(i.dir, "received") }

// ReceiverLog is what totpctl said of them.
func (i *Instance) ReceiverLog() string { return filepath.Join(i.dir, "receiver.log") }

// ReceiverPID returns the number of totpctl's process.
func (i *Instance) ReceiverPID() int { return i.receiver.Process.Pid }

// PowerOff shuts the instance down in order.
func (i *Instance) PowerOff(ctx context.Context) error {
	defer i.stopReceiver()
	return i.Machine.PowerOff(ctx)
}

// Cut cuts the power. It may be called on an instance that is not running.
func (i *Instance) Cut() {
	if i.Machine != nil {
		i.Machine.Cut()
	}
	i.stopReceiver()
}

// stopReceiver returns when everything received is on disk.
func (i *Instance) stopReceiver() {
	if i.received == nil {
		return
	}
	_ = i.receiver.Process.Signal(syscall.SIGTERM)
	select {
	case <-i.received:
	case <-time.After(20 * time.Second):
		_ = i.receiver.Process.Kill()
		<-i.received
	}
	i.received = nil
}

func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
