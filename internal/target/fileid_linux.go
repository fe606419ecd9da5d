// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// FileID names a file system and a file on it. A file that is removed and made
// again under the same name has another id where the file system records the time
// of birth, and often even where it does not.
func (t *Target) FileID(name string) (fs, id string, err error) {
	f, err := t.OpenFile(name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	var on unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &on); err != nil {
		return "", "", err
	}
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st); err != nil {
		return "", "", err
	}
	id = fmt.Sprintf("%x", st.Ino)
	if st.Mask&unix.STATX_BTIME != 0 {
		id += fmt.Sprintf("-%x-%x", st.Btime.Sec, st.Btime.Nsec)
	}
	return fmt.Sprintf("%x", uint64(uint32(on.Fsid.Val[0]))<<32|uint64(uint32(on.Fsid.Val[1]))), id, nil
}
