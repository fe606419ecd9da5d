// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package seed writes the seed of cloud-init's NoCloud datasource: a directory,
// or an ISO 9660 image with the volume name cidata, with which libvirt, Proxmox
// and QEMU tell a machine who it is.
//
// # Promises
//
// Nothing is overwritten. Files are made with mode 0600, directories with 0700,
// and are on the disk when the call returns. What cannot be finished is removed.
//
// # Limits
//
// The image is made in a directory beside it, which is removed.
package seed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
)

// Label is the volume name by which NoCloud finds an image.
const Label = "cidata"

// Files returns the files of a seed. A vendor's document goes beside a user-data
// that says nothing, since NoCloud wants one.
func Files(instanceID, hostname string, doc []byte, vendor bool) map[string][]byte {
	meta := "instance-id: " + instanceID + "\n"
	if hostname != "" {
		meta += "local-hostname: " + hostname + "\n"
	}
	files := map[string][]byte{"meta-data": []byte(meta), "user-data": doc}
	if vendor {
		files["user-data"], files["vendor-data"] = []byte("#cloud-config\n{}\n"), doc
	}
	return files
}

// WriteDir makes the directory dir with the files in it.
func WriteDir(dir string, files map[string][]byte) (err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	return write(dir, files)
}

// WriteISO makes the image. Its names are in Rock Ridge and Joliet, since
// "user-data" is no name that ISO 9660 knows.
func WriteISO(name string, files map[string][]byte) (err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, ignoreClosed(f.Close())); err != nil {
			os.Remove(name)
		}
	}()
	// Beside the image, so that nothing of it is where others have their
	// temporary files.
	work, err := os.MkdirTemp(filepath.Dir(name), ".seed-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := write(work, files); err != nil {
		return err
	}
	image, err := iso9660.Create(file.New(f, false), 0, 0, 2048, work)
	if err != nil {
		return fmt.Errorf("iso: %w", err)
	}
	if err := image.Finalize(iso9660.FinalizeOptions{RockRidge: true, Joliet: true, VolumeIdentifier: Label}); err != nil {
		return fmt.Errorf("iso: %w", err)
	}
	return f.Sync()
}

func ignoreClosed(err error) error {
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}

func write(dir string, files map[string][]byte) error {
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := writeFile(filepath.Join(dir, name), files[name]); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
