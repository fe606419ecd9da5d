// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package vm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Block is one block of a disk's file system, and whose it is.
type Block struct {
	Number int64
	Free   bool   // belongs to nothing any more
	File   string // that it belongs to; empty for a free one and for the file system's own
	Data   []byte // contents, without the zero bytes at the end
}

// Blocks returns the blocks that hold the given bytes of the disk, each once and
// in order.
func (d *Disk) Blocks(ctx context.Context, offsets []int64) ([]Block, error) {
	size, err := d.BlockSize()
	if err != nil {
		return nil, err
	}
	var numbers []int64
	for _, o := range offsets {
		numbers = append(numbers, o/size)
	}
	slices.Sort(numbers)
	f, err := os.Open(d.Raw)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var blocks []Block
	for _, n := range slices.Compact(numbers) {
		b := Block{Number: n}
		data := make([]byte, size)
		if _, err := f.ReadAt(data, n*size); err != nil {
			return nil, err
		}
		b.Data = bytes.TrimRight(data, "\x00")
		if b.Free, b.File, err = d.owner(ctx, n); err != nil {
			return nil, err
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}

// owner tells what a block belongs to.
func (d *Disk) owner(ctx context.Context, block int64) (free bool, file string, err error) {
	if block == 0 { // the boot sector and the superblock; debugfs does not take it
		return false, "", nil
	}
	out, err := d.debugfs(ctx, "", fmt.Sprintf("testb %d", block))
	if err != nil {
		return false, "", err
	}
	switch strings.TrimSpace(out) {
	case fmt.Sprintf("Block %d not in use", block):
		return true, "", nil
	case fmt.Sprintf("Block %d marked in use", block):
	default:
		return false, "", fmt.Errorf("testb %d: %w: %q", block, ErrDisk, out)
	}
	inode, err := d.second(ctx, fmt.Sprintf("icheck %d", block))
	if err != nil {
		return false, "", err
	}
	if _, err := strconv.Atoi(inode); err != nil { // "<block not found>"
		return false, "", nil
	}
	file, err = d.second(ctx, "ncheck "+inode)
	return false, file, err
}

// second runs a command that prints a heading and a line of two columns, and
// returns the second one.
func (d *Disk) second(ctx context.Context, command string) (string, error) {
	out, err := d.debugfs(ctx, "", command)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	if len(lines) < 2 { // ncheck of an inode without a name, as the journal's
		return "", nil
	}
	_, value, _ := strings.Cut(lines[1], "\t")
	return value, nil
}
