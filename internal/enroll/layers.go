// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// readLayer returns the text of a layer that cloud-init has written, nil if
// there is none.
//
// cloud-init writes the files of user-data once an instance, and does not wait
// for them to reach the disk. A power cut in the first boot can leave a file
// of no bytes that no later boot fills. cloud-init's own copy of the merged
// cloud-config is written anew at each boot, and has the text.
func readLayer(t *target.Target, file, config string) ([]byte, error) {
	b, err := readOwn(t, file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(bytes.TrimSpace(b)) > 0 {
		return b, nil
	}
	doc, err := readOwn(t, config)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	text, err := writtenFile(doc, file)
	if err != nil {
		return nil, fmt.Errorf("%s: write_files: %s: %w", config, file, err)
	}
	if text == nil {
		return b, nil // an empty one is refused as such
	}
	return text, nil
}

// writtenFile returns what a cloud-config writes to a file, nil for nothing.
// The encodings are those of cloud-init's module write_files.
func writtenFile(doc []byte, file string) ([]byte, error) {
	var config struct {
		WriteFiles []struct {
			Path     string `yaml:"path"`
			Content  string `yaml:"content"`
			Encoding string `yaml:"encoding"`
		} `yaml:"write_files"`
	}
	if err := yaml.Unmarshal(doc, &config); err != nil {
		// The document is cloud-init's to judge, and may hold secrets: no word of it.
		return nil, errNoCloudConfig
	}
	var text []byte
	for _, f := range config.WriteFiles {
		if f.Path != file {
			continue
		}
		b, err := decode([]byte(f.Content), strings.ToLower(f.Encoding))
		if err != nil {
			return nil, err
		}
		text = b // the last one wins, as on the disk
	}
	return text, nil
}

var (
	errNoCloudConfig = errors.New("not a cloud-config that can be read")
	errEncoding      = errors.New("damaged, or an encoding that is not known; use b64, or none")
)

func decode(b []byte, encoding string) ([]byte, error) {
	switch encoding {
	case "", "text/plain":
		return b, nil
	case "b64", "base64":
		return fromBase64(b)
	case "gz", "gzip":
		return unzip(b)
	case "gz+b64", "gz+base64", "gzip+b64", "gzip+base64":
		b, err := fromBase64(b)
		if err != nil {
			return nil, err
		}
		return unzip(b)
	}
	return nil, errEncoding
}

func fromBase64(b []byte) ([]byte, error) {
	out, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(b)), ""))
	if err != nil {
		return nil, errEncoding
	}
	return out, nil
}

// maxLayer bounds what a packed layer may become; the policy's own limit is
// lower and has its own words.
const maxLayer = 128 << 10

func unzip(b []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, errEncoding
	}
	out, err := io.ReadAll(io.LimitReader(r, maxLayer))
	if err != nil {
		return nil, errEncoding
	}
	return out, nil
}

// closeLayers takes the right to read layers from other users, and returns the
// files that it has changed. A layer may hold a token and credentials, and
// write_files gives a file the mode 0644 unless it is told otherwise. The agent
// runs before any user can log in.
func closeLayers(t *target.Target) []string {
	var closed []string
	for _, c := range carriers {
		for _, name := range []string{c.file, c.module} {
			fi, err := t.Lstat(name)
			if err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o044 != 0 && t.Chmod(name, 0o600) == nil {
				closed = append(closed, name)
			}
		}
	}
	return closed
}

// readOwn reads a file that nobody but the agent's own user can have written.
func readOwn(t *target.Target, name string) ([]byte, error) {
	info, err := t.Stat(name)
	if err != nil {
		return nil, err
	}
	if uid, _, ok := target.Owner(info); !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 || ok && uid != os.Geteuid() {
		return nil, fmt.Errorf("%s: mode %v: %w", name, info.Mode(), errForeign)
	}
	return t.ReadFile(name)
}

var errForeign = errors.New("others than root can write it; make it a file of root with mode 0600")
