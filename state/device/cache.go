package device

import (
	"container/list"
	"sync"

	"github.com/holdfast-wa/holdfast/state"
)

// cache holds opened records, also the knowledge that there is none, the least
// recently used ones giving way. It never holds what is not durable or, for lazy
// records, what the journal does not have. Its zero value with a limit is ready;
// it takes no memory before it is used.
type cache struct {
	limit int

	mu     sync.Mutex
	byKey  map[state.Key]*list.Element
	order  list.List // of cached, the most recently used first
	size   int
	writes uint64 // grows with each write, so that a slow read does not put back what is old
}

type cached struct {
	key   state.Key
	value []byte
	found bool
}

// cachedOverhead is what an entry takes beside its key and value.
const cachedOverhead = 200

func (e *cached) cost() int { return cachedOverhead + len(e.key.ID) + len(e.value) }

// get returns what is known of a record.
func (c *cache) get(key state.Key) (value []byte, found, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el, ok := c.byKey[key]
	if !ok {
		return nil, false, false
	}
	c.order.MoveToFront(el)
	e := el.Value.(*cached)
	return e.value, e.found, true
}

// mark returns a mark for fill.
func (c *cache) mark() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// fill adds what was read, unless something was written since the mark.
func (c *cache) fill(mark uint64, key state.Key, value []byte, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writes == mark {
		c.set(key, value, found)
	}
}

// put adds what was written.
func (c *cache) put(key state.Key, value []byte, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	c.set(key, value, found)
}

func (c *cache) set(key state.Key, value []byte, found bool) {
	if el, ok := c.byKey[key]; ok {
		c.drop(el)
	}
	e := &cached{key, value, found}
	if e.cost() > c.limit/2 {
		return // one large record must not push all others out
	}
	if c.byKey == nil {
		c.byKey = make(map[state.Key]*list.Element)
	}
	c.byKey[key] = c.order.PushFront(e)
	c.size += e.cost()
	for c.size > c.limit {
		c.drop(c.order.Back())
	}
}

func (c *cache) drop(el *list.Element) {
	e := c.order.Remove(el).(*cached)
	delete(c.byKey, e.key)
	c.size -= e.cost()
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byKey, c.size = nil, 0
	c.order.Init()
	c.writes++
}

// clearKind forgets the records of a kind.
func (c *cache) clearKind(kind state.Kind) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for el := c.order.Front(); el != nil; {
		next := el.Next()
		if el.Value.(*cached).key.Kind == kind {
			c.drop(el)
		}
		el = next
	}
	c.writes++
}

// remove forgets one record.
func (c *cache) remove(key state.Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	if el, ok := c.byKey[key]; ok {
		c.drop(el)
	}
}
