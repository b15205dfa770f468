package device

import (
	"context"
	"time"

	"go.mau.fi/whatsmeow/store"
	"go.mau.fi/whatsmeow/types"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/state/journal"
)

// contact is the record of a contact. Losing the latest ones is survivable, so
// they are written lazily.
type contact struct {
	JID           string `json:"jid"`
	FirstName     string `json:"first,omitempty"`
	FullName      string `json:"full,omitempty"`
	PushName      string `json:"push,omitempty"`
	BusinessName  string `json:"business,omitempty"`
	RedactedPhone string `json:"redacted,omitempty"`
}

func (c contact) info() types.ContactInfo {
	return types.ContactInfo{Found: true, FirstName: c.FirstName, FullName: c.FullName, PushName: c.PushName,
		BusinessName: c.BusinessName, RedactedPhone: c.RedactedPhone}
}

func (d *Device) contactKey(user types.JID) state.Key {
	return d.key(state.KindContact, d.blind("jid", user.String()))
}

// contact reads a contact; one that is not there has no JID.
func (d *Device) contact(ctx context.Context, user types.JID) (contact, error) {
	value, ok, err := d.get(ctx, nil, d.contactKey(user))
	if err != nil || !ok {
		return contact{}, err
	}
	c, err := decodeJSON[contact](d, value)
	if err != nil {
		return contact{}, err
	}
	return *c, nil
}

// editContact changes a contact, if edit says that there is a change.
func (d *Device) editContact(ctx context.Context, user types.JID, edit func(*contact) bool) (bool, error) {
	d.survivable.Lock()
	defer d.survivable.Unlock()
	c, err := d.contact(ctx, user)
	if err != nil || !edit(&c) {
		return false, err
	}
	c.JID = user.String()
	return true, d.lazily(ctx, change{key: d.contactKey(user), value: encodeJSON(c)})
}

// PutPushName returns whether the name has changed, and the one before.
func (s *libraryStore) PutPushName(ctx context.Context, user types.JID, pushName string) (bool, string, error) {
	var before string
	changed, err := s.d.editContact(ctx, user, func(c *contact) bool {
		before, c.PushName = c.PushName, pushName
		return before != pushName
	})
	if err != nil || !changed {
		return false, "", err
	}
	return true, before, nil
}

// PutBusinessName returns whether the name has changed, and the one before.
func (s *libraryStore) PutBusinessName(ctx context.Context, user types.JID, businessName string) (bool, string, error) {
	var before string
	changed, err := s.d.editContact(ctx, user, func(c *contact) bool {
		before, c.BusinessName = c.BusinessName, businessName
		return before != businessName
	})
	if err != nil || !changed {
		return false, "", err
	}
	return true, before, nil
}

// PutContactName takes the names in the order in which the library hands them
// over, which is not the one that its interface names.
func (s *libraryStore) PutContactName(ctx context.Context, user types.JID, firstName, fullName string) error {
	_, err := s.d.editContact(ctx, user, func(c *contact) bool {
		changed := c.FirstName != firstName || c.FullName != fullName
		c.FirstName, c.FullName = firstName, fullName
		return changed
	})
	return err
}

// editContacts changes many contacts, with one read and few commits.
func (d *Device) editContacts(ctx context.Context, users []types.JID, edit func(c *contact, i int)) error {
	if len(users) == 0 {
		return d.check()
	}
	d.survivable.Lock()
	defer d.survivable.Unlock()
	wanted := make([]state.Key, len(users))
	for i, user := range users {
		wanted[i] = d.contactKey(user)
	}
	have, err := d.getMany(ctx, nil, wanted)
	if err != nil {
		return err
	}
	edited := newUnit(brief, 0)
	for i, user := range users {
		var c contact
		value, ok := have[wanted[i]]
		if staged, again := edited.peek(wanted[i]); again {
			value, ok = staged.value, true
		}
		if ok {
			old, err := decodeJSON[contact](d, value)
			if err != nil {
				return err
			}
			c = *old
		}
		before := c
		edit(&c, i)
		c.JID = user.String()
		if c != before {
			edited.stage(change{key: wanted[i], value: encodeJSON(c)})
		}
	}
	return d.apply(ctx, edited.changes(), journal.Batch{}, false)
}

func (s *libraryStore) PutAllContactNames(ctx context.Context, contacts []store.ContactEntry) error {
	users := make([]types.JID, len(contacts))
	for i, c := range contacts {
		users[i] = c.JID
	}
	return s.d.editContacts(ctx, users, func(c *contact, i int) {
		c.FirstName, c.FullName = contacts[i].FirstName, contacts[i].FullName
	})
}

func (s *libraryStore) PutManyRedactedPhones(ctx context.Context, entries []store.RedactedPhoneEntry) error {
	users := make([]types.JID, len(entries))
	for i, e := range entries {
		users[i] = e.JID
	}
	return s.d.editContacts(ctx, users, func(c *contact, i int) { c.RedactedPhone = entries[i].RedactedPhone })
}

func (s *libraryStore) GetContact(ctx context.Context, user types.JID) (types.ContactInfo, error) {
	c, err := s.d.contact(ctx, user)
	if err != nil || c.JID == "" {
		return types.ContactInfo{}, err
	}
	return c.info(), nil
}

func (s *libraryStore) GetAllContacts(ctx context.Context) (map[types.JID]types.ContactInfo, error) {
	all, err := s.d.scan(ctx, state.KindContact, "")
	if err != nil {
		return nil, err
	}
	out := make(map[types.JID]types.ContactInfo, len(all))
	for _, r := range all {
		c, err := decodeJSON[contact](s.d, r.value)
		if err != nil {
			return nil, err
		}
		jid, err := types.ParseJID(c.JID)
		if err != nil {
			continue // a JID of a kind that the library does not know any more
		}
		out[jid] = c.info()
	}
	return out, nil
}

// chat is the record of a chat's settings. Muted is Unix seconds, -1 for ever.
type chat struct {
	Muted    int64 `json:"muted,omitempty"`
	Pinned   bool  `json:"pinned,omitempty"`
	Archived bool  `json:"archived,omitempty"`
}

func (d *Device) chatKey(jid types.JID) state.Key {
	return d.key(state.KindChat, d.blind("jid", jid.String()))
}

func (d *Device) editChat(ctx context.Context, jid types.JID, edit func(*chat)) error {
	d.survivable.Lock()
	defer d.survivable.Unlock()
	value, ok, err := d.get(ctx, nil, d.chatKey(jid))
	if err != nil {
		return err
	}
	c := &chat{}
	if ok {
		if c, err = decodeJSON[chat](d, value); err != nil {
			return err
		}
	}
	edit(c)
	return d.lazily(ctx, change{key: d.chatKey(jid), value: encodeJSON(c)})
}

func (s *libraryStore) PutMutedUntil(ctx context.Context, jid types.JID, until time.Time) error {
	return s.d.editChat(ctx, jid, func(c *chat) {
		switch {
		case until.Equal(store.MutedForever):
			c.Muted = -1
		case until.IsZero():
			c.Muted = 0
		default:
			c.Muted = until.Unix()
		}
	})
}

func (s *libraryStore) PutPinned(ctx context.Context, jid types.JID, pinned bool) error {
	return s.d.editChat(ctx, jid, func(c *chat) { c.Pinned = pinned })
}

func (s *libraryStore) PutArchived(ctx context.Context, jid types.JID, archived bool) error {
	return s.d.editChat(ctx, jid, func(c *chat) { c.Archived = archived })
}

func (s *libraryStore) GetChatSettings(ctx context.Context, jid types.JID) (types.LocalChatSettings, error) {
	value, ok, err := s.d.get(ctx, nil, s.d.chatKey(jid))
	if err != nil || !ok {
		return types.LocalChatSettings{}, err
	}
	c, err := decodeJSON[chat](s.d, value)
	if err != nil {
		return types.LocalChatSettings{}, err
	}
	out := types.LocalChatSettings{Found: true, Pinned: c.Pinned, Archived: c.Archived}
	switch {
	case c.Muted < 0:
		out.MutedUntil = store.MutedForever
	case c.Muted > 0:
		out.MutedUntil = time.Unix(c.Muted, 0)
	}
	return out, nil
}
