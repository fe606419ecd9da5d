// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// errQMP is QEMU's refusal of a command, or of the protocol.
var errQMP = errors.New("qemu does not do as asked")

// command sends one command to QEMU's monitor and waits for the answer.
func command(ctx context.Context, socket, name string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	answers := json.NewDecoder(bufio.NewReader(conn))
	var greeting struct {
		QMP *json.RawMessage
	}
	if err := answers.Decode(&greeting); err != nil {
		return err
	}
	if greeting.QMP == nil {
		return fmt.Errorf("%w: no greeting", errQMP)
	}
	for _, c := range []string{"qmp_capabilities", name} {
		if _, err := fmt.Fprintf(conn, "{\"execute\": %q}\n", c); err != nil {
			return err
		}
		if err := answer(answers); err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
	}
	return nil
}

// answer reads up to the answer, over events.
func answer(in *json.Decoder) error {
	for {
		var a struct {
			Return *json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := in.Decode(&a); err != nil {
			return err
		}
		if a.Error != nil {
			return fmt.Errorf("%w: %s", errQMP, a.Error.Desc)
		}
		if a.Return != nil {
			return nil
		}
	}
}
