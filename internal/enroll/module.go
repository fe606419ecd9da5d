// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"reflect"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// The ways in which a layer can be refused before it is read.
var (
	// ErrHandover is about what came in place of a handover.
	ErrHandover = errors.New("not what cloud-init's module totp hands over")
	// ErrInstance is about a handover for another instance than the present one.
	ErrInstance = errors.New("not the present instance")
	// ErrTwoCarriers is about a layer that came in two ways, which say different
	// things.
	ErrTwoCarriers = errors.New("the layer is there twice, and not the same")
)

// A carrier is where a layer of an instance's data can be.
type carrier struct {
	layer  policy.Layer
	file   string // what write_files has written
	config string // cloud-init's own copy of the cloud-config that did
	module string // what cloud-init's module has handed over
}

var carriers = []carrier{
	{policy.Vendor, target.VendorPolicy, target.CloudVendorConfig, target.VendorModule},
	{policy.Instance, target.InstancePolicy, target.CloudConfig, target.InstanceModule},
}

// maxHandover bounds what is read of a handover. User-data is smaller.
const maxHandover = 1 << 20

// Hand takes the layers that cloud-init's module hands over, one JSON object
// with the instance-id and under each layer's name the key totp of its data. It
// keeps each in a file that is bound to this instance, and removes the file of a
// layer that is not there any more.
//
// A layer with mistakes is kept as well: the next [Run] refuses it where
// everybody sees it. The error, [policy.Errors], tells the caller now.
func Hand(t *target.Target, r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, maxHandover+1))
	if err != nil {
		return err
	}
	var given map[string]json.RawMessage
	if len(b) > maxHandover || json.Unmarshal(b, &given) != nil {
		return fmt.Errorf("standard input: %w; call it by: cloud-init single --name totp", ErrHandover)
	}
	var id string
	if err := json.Unmarshal(given["instance_id"], &id); err != nil {
		return fmt.Errorf("instance_id: %w", ErrHandover)
	}
	// cloud-init's name for the directory of an ID with slashes.
	dir := strings.ReplaceAll(id, "/", "_")
	if link, err := t.Readlink(target.CloudInstance); err != nil || path.Base(link) != dir {
		return fmt.Errorf("instance_id: %q: %w, to which %s leads", id, ErrInstance, target.CloudInstance)
	}
	var errs []error
	for _, c := range carriers {
		errs = append(errs, c.take(t, given[string(c.layer)]))
	}
	return errors.Join(errs...)
}

// take writes what was handed over of a layer, and says what is wrong with it.
func (c carrier) take(t *target.Target, text json.RawMessage) error {
	if text == nil {
		return remove(t, c.module)
	}
	// JSON is YAML, and on lines of its own each value has a place that an error
	// can name.
	var b bytes.Buffer
	fmt.Fprintf(&b, "# The key totp of %s-data, as cloud-init's module has handed it over.\n", source(c.layer))
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return fmt.Errorf("%s: %w", c.layer, ErrHandover)
	}
	b.WriteByte('\n')
	if now, err := readOwn(t, c.module); err != nil || !bytes.Equal(now, b.Bytes()) {
		if err := t.WriteFile(c.module, b.Bytes(), 0o600); err != nil {
			return err
		}
	}
	_, err := policy.Parse(c.layer, path.Base(c.module), b.Bytes())
	return err
}

// source is how people call the data that a layer is from.
func source(l policy.Layer) string {
	if l == policy.Instance {
		return "user"
	}
	return string(l)
}

// read returns the text of a layer, nil if there is none, and the name of the
// file that it is from. A layer that came in both ways is an error unless both
// say the same.
func (c carrier) read(t *target.Target) (text []byte, name string, err error) {
	text, err = readLayer(t, c.file, c.config)
	if err != nil {
		return nil, "", err
	}
	handed, err := readOwn(t, c.module)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return text, path.Base(c.file), nil
	case err != nil:
		return nil, "", err
	case text == nil || c.same(text, handed):
		return handed, path.Base(c.module), nil
	}
	return nil, "", fmt.Errorf("%s and %s: %w; write the policy by write_files or under the key totp", c.file, c.module, ErrTwoCarriers)
}

// readPatiently is read with a second and a third try: many faults pass, and a boot that
// fails by one leaves its users without an enrollment until the next run.
func (c carrier) readPatiently(t *target.Target) (text []byte, name string, err error) {
	for try := range readTries {
		if try > 0 {
			time.Sleep(readPause)
		}
		if text, name, err = c.read(t); !target.IsFault(err) {
			break
		}
	}
	return text, name, err
}

const (
	readTries = 3
	readPause = 100 * time.Millisecond
)

// same reports whether two texts are the same policy.
func (c carrier) same(a, b []byte) bool {
	p, err := policy.Parse(c.layer, "", a)
	if err != nil {
		return false
	}
	q, err := policy.Parse(c.layer, "", b)
	return err == nil && reflect.DeepEqual(p, q)
}

// named puts the file's name into the errors of a layer's text.
func named(err error, file string) {
	var errs policy.Errors
	if errors.As(err, &errs) {
		for _, e := range errs {
			e.File = file
		}
	}
}
