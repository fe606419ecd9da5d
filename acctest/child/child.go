// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package child

import (
	"os/exec"
	"runtime"
	"syscall"
)

// Start starts cmd, to which the kernel sends sig when this process ends. The
// channel gets what cmd.Wait returns, once, and is closed; do not call Wait.
func Start(cmd *exec.Cmd, sig syscall.Signal) (<-chan error, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = sig
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		// The signal is bound to the thread that forked (prctl(2)): it has to live
		// as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
			close(ended)
		}
	}()
	return ended, <-started
}

// Run starts cmd as [Start] does and waits for it to end.
func Run(cmd *exec.Cmd, sig syscall.Signal) error {
	ended, err := Start(cmd, sig)
	if err != nil {
		return err
	}
	return <-ended
}
