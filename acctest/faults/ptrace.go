// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux && amd64

package faults

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// syscallStop is struct ptrace_syscall_info: unlike the registers, it tells the entry of
// a call from its end.
type syscallStop struct {
	Op   uint8
	_    [3]uint8
	_    uint32
	_, _ uint64
	Data [8]uint64 // of an entry the number and six arguments
}

const (
	getSyscallInfo = 0x420e // PTRACE_GET_SYSCALL_INFO
	opEntry        = 1
	opExit         = 2
)

func (s syscallStop) nr() uint64 { return s.Data[0] }

func (s syscallStop) args() (args [6]uint64) {
	copy(args[:], s.Data[1:])
	return args
}

func syscallInfo(pid int) (s syscallStop, err error) {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(pid), unsafe.Sizeof(s), uintptr(unsafe.Pointer(&s)), 0, 0)
	if errno != 0 {
		return s, errno
	}
	return s, nil
}

// peek reads memory of a process up to size, or up to the end of what is mapped.
func peek(pid int, addr uint64, size int) []byte {
	buf := make([]byte, size)
	local := []unix.Iovec{{Base: &buf[0], Len: uint64(size)}}
	n, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(addr), Len: size}}, 0)
	if err != nil || n < 0 {
		return nil
	}
	return buf[:n]
}

// registers changes a stopped task's. One that was killed meanwhile has none.
func registers(pid int, set func(*unix.PtraceRegs)) {
	var regs unix.PtraceRegs
	if unix.PtraceGetRegs(pid, &regs) == nil {
		set(&regs)
		_ = unix.PtraceSetRegs(pid, &regs)
	}
}

// skip lets the kernel do nothing for the call that a task enters.
func skip(pid int) { registers(pid, func(r *unix.PtraceRegs) { r.Orig_rax = ^uint64(0) }) }

func setResult(pid int, errno unix.Errno) {
	registers(pid, func(r *unix.PtraceRegs) { r.Rax = -uint64(errno) })
}

// shorten halves the number of bytes that a call is to write.
func shorten(pid int, c Call) { setArgument(pid, c.sizeArg, c.original/2) }

func restore(pid int, c Call) { setArgument(pid, c.sizeArg, c.original) }

func setArgument(pid, index int, value uint64) {
	registers(pid, func(r *unix.PtraceRegs) {
		*[]*uint64{&r.Rdi, &r.Rsi, &r.Rdx, &r.R10, &r.R8, &r.R9}[index] = value
	})
}
