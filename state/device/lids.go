package device

import (
	"context"
	"fmt"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/state"
)

// The map between phone numbers and LIDs is two records a pair, one each way.
func (d *Device) lidOf(pnUser string) state.Key {
	return d.key(state.KindLID, "p."+d.blind("pn", pnUser))
}

func (d *Device) pnOf(lidUser string) state.Key {
	return d.key(state.KindLID, "l."+d.blind("lid", lidUser))
}

func (s *libraryStore) PutLIDMapping(ctx context.Context, lid, pn types.JID) error {
	if lid.Server != types.HiddenUserServer || pn.Server != types.DefaultUserServer {
		return fmt.Errorf("a LID and a phone number are needed, got servers %q and %q", lid.Server, pn.Server)
	}
	return s.PutManyLIDMappings(ctx, []store.LIDMapping{{LID: lid, PN: pn}})
}

// PutManyLIDMappings stores pairs; what is no pair of LID and phone number is
// left out. A number or a LID is in one pair at most, the newest.
func (s *libraryStore) PutManyLIDMappings(ctx context.Context, mappings []store.LIDMapping) error {
	d := s.d
	if err := d.check(); err != nil {
		return err
	}
	var ask []state.Key
	for _, m := range mappings {
		if m.LID.Server == types.HiddenUserServer && m.PN.Server == types.DefaultUserServer {
			ask = append(ask, d.lidOf(m.PN.User), d.pnOf(m.LID.User))
		}
	}
	if len(ask) == 0 {
		return nil
	}
	d.survivable.Lock()
	defer d.survivable.Unlock()
	have, err := d.getMany(ctx, d.unit(ctx), ask)
	if err != nil {
		return err
	}
	staged := newUnit(brief, 0)
	now := func(key state.Key) string {
		if c, ok := staged.peek(key); ok {
			return string(c.value)
		}
		return string(have[key])
	}
	set := func(key state.Key, user string) {
		staged.stage(change{key: key, value: []byte(user), del: user == "", early: true})
	}
	for _, m := range mappings {
		if m.LID.Server != types.HiddenUserServer || m.PN.Server != types.DefaultUserServer {
			continue
		}
		forward, back := d.lidOf(m.PN.User), d.pnOf(m.LID.User)
		oldLID, oldPN := now(forward), now(back)
		if oldLID == m.LID.User && oldPN == m.PN.User {
			continue
		}
		if oldLID != "" && oldLID != m.LID.User {
			set(d.pnOf(oldLID), "")
		}
		if oldPN != "" && oldPN != m.PN.User {
			set(d.lidOf(oldPN), "")
		}
		set(forward, m.LID.User)
		set(back, m.PN.User)
	}
	return d.write(ctx, staged.changes()...)
}

func (s *libraryStore) GetLIDForPN(ctx context.Context, pn types.JID) (types.JID, error) {
	if pn.Server != types.DefaultUserServer {
		return types.JID{}, fmt.Errorf("a phone number is needed, got server %q", pn.Server)
	}
	return s.d.mapped(ctx, s.d.lidOf(pn.User), pn.Device, types.HiddenUserServer)
}

func (s *libraryStore) GetPNForLID(ctx context.Context, lid types.JID) (types.JID, error) {
	if lid.Server != types.HiddenUserServer {
		return types.JID{}, fmt.Errorf("a LID is needed, got server %q", lid.Server)
	}
	return s.d.mapped(ctx, s.d.pnOf(lid.User), lid.Device, types.DefaultUserServer)
}

// mapped reads one direction of the map; the device number stays.
func (d *Device) mapped(ctx context.Context, key state.Key, device uint16, server string) (types.JID, error) {
	value, ok, err := d.get(ctx, d.unit(ctx), key)
	if err != nil || !ok || len(value) == 0 {
		return types.JID{}, err
	}
	return types.JID{User: string(value), Device: device, Server: server}, nil
}

func (s *libraryStore) GetManyLIDsForPNs(ctx context.Context, pns []types.JID) (map[types.JID]types.JID, error) {
	d := s.d
	if len(pns) == 0 {
		return nil, d.check()
	}
	wanted := make([]state.Key, 0, len(pns))
	for _, pn := range pns {
		if pn.Server == types.DefaultUserServer {
			wanted = append(wanted, d.lidOf(pn.User))
		}
	}
	got, err := d.getMany(ctx, d.unit(ctx), wanted)
	if err != nil {
		return nil, err
	}
	result := make(map[types.JID]types.JID, len(pns))
	for _, pn := range pns {
		if pn.Server != types.DefaultUserServer {
			continue
		}
		if lid := got[d.lidOf(pn.User)]; len(lid) > 0 {
			result[pn] = types.JID{User: string(lid), Device: pn.Device, Server: types.HiddenUserServer}
		}
	}
	return result, nil
}

// alternate returns the same user's other address, if it is known.
func (d *Device) alternate(ctx context.Context, jid types.JID) (types.JID, error) {
	switch jid.Server {
	case types.DefaultUserServer:
		return d.mapped(ctx, d.lidOf(jid.User), jid.Device, types.HiddenUserServer)
	case types.HiddenUserServer:
		return d.mapped(ctx, d.pnOf(jid.User), jid.Device, types.DefaultUserServer)
	}
	return types.JID{}, nil
}
