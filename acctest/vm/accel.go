// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package vm

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/child"
	"syscall"
)

// Accel is how QEMU runs a guest's code.
type Accel string

// The accelerators.
const (
	KVM Accel = "kvm" // by the processor
	TCG Accel = "tcg" // by translating it; slow, and works everywhere
)

// ProbeAccel returns KVM where a kernel really says something under it within
// ten seconds, otherwise TCG. There are machines with a /dev/kvm under which
// nothing runs.
func ProbeAccel(ctx context.Context, b Base) Accel {
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return TCG
	}
	_ = kvm.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-machine", "pc,accel=kvm", "-cpu", "max", "-m", "256",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
		"-kernel", b.Kernel, "-append", "console=ttyS0 panic=-1") // without a disk it panics, and ends
	var out bytes.Buffer
	cmd.Stdout = &out
	_ = child.Run(cmd, syscall.SIGKILL)
	if bytes.Contains(out.Bytes(), []byte("Linux version ")) {
		return KVM
	}
	return TCG
}

// cpu is the model for a guest. The emulation of the newest one is the slowest.
func (a Accel) cpu() string {
	if a == KVM {
		return "max"
	}
	return "qemu64"
}

// CPUs is how many processors a guest gets. Under emulation, one of two now and
// then loses its timer, and the boot stands still.
func (a Accel) CPUs() int {
	if a == KVM {
		return 2
	}
	return 1
}

// machine is the argument of QEMU's -machine. With q35 a CD is out of reach of
// Debian's kernel for clouds.
func (a Accel) machine() string {
	if a == KVM {
		return "pc,accel=kvm"
	}
	return "pc,accel=tcg"
}
