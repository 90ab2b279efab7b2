// What Redis does in one step, in Lua. Each script keeps an index of what there is, so that the whole stays within its limits: a sorted set
// of members (by when they were used, or made) and the sum of their bytes. What Redis itself let go, by its own limit or since its time was
// over, is found out where place is needed.

/** What stands in the place of an index and is none, since another program has put it there, is removed: all begins anew. */
const healing = `
local function heal(key, kind)
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then redis.call('UNLINK', key) end
end
local function sumAt(key)
  heal(key, 'string')
  local text = redis.call('GET', key) or '0'
  if #text < 16 and string.match(text, '^%d+$') then return tonumber(text) end
  redis.call('UNLINK', key)
  return 0
end
local function sizeOf(m) return tonumber(string.match(m, '|(%d+)$') or '0') end
local function nameOf(m) return string.match(m, '^(.*)|%d+$') or '' end
`;

/** Notes a state of a prompt that was written, or used, and removes those that were used longest ago while there are too many. */
const noteState = `${healing}
local used, total, marker = KEYS[1], KEYS[2], KEYS[3]
local member, bytes, ttl, place, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
heal(used, 'zset')
heal(marker, 'string')
local sum = sumAt(total)
local function valueOf(m) return ARGV[6] .. nameOf(m) end
if redis.call('ZADD', used, now, member) == 1 then sum = sum + bytes end
redis.call('PEXPIRE', valueOf(member), ttl)
redis.call('SETBIT', marker, place, 1)
redis.call('PEXPIRE', marker, ttl)
for _, old in ipairs(redis.call('ZRANGEBYSCORE', used, '-inf', now - ttl, 'LIMIT', 0, 100)) do
  redis.call('ZREM', used, old)
  sum = sum - sizeOf(old)
end
while sum > most do
  local popped = redis.call('ZPOPMIN', used)
  if #popped == 0 then break end
  redis.call('UNLINK', valueOf(popped[1]))
  sum = sum - sizeOf(popped[1])
end
if sum < 0 or redis.call('ZCARD', used) == 0 then sum = 0 end
redis.call('SET', total, string.format('%.0f', sum), 'PX', ttl)
redis.call('PEXPIRE', used, ttl)
return string.format('%.0f', sum)
`;

/** What drops an object that an index names, of the scripts below. A member is "owner:id|bytes". */
const dropping = `${healing}
local prefix, all, total = ARGV[1], KEYS[1], KEYS[2]
local function owned(m) return prefix .. 'own:' .. (string.match(m, '^([^:]*):') or '') end
local function valueOf(m) return prefix .. 'object:' .. nameOf(m) end
local function drop(m, index)
  if redis.call('ZREM', all, m) == 1 then redis.call('SET', total, string.format('%.0f', sumAt(total) - sizeOf(m))) end
  heal(owned(m), 'zset')
  redis.call('ZREM', owned(m), m)
  redis.call('ZREM', index, m)
  redis.call('UNLINK', valueOf(m))
end
heal(all, 'zset')
heal(owned(ARGV[2]), 'zset')
sumAt(total)
local function prune(key)
  for _, m in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    if redis.call('EXISTS', valueOf(m)) == 0 then drop(m, key) end
  end
end
`;

/** Takes an object into the index that was written for a while, for good; or removes it, where there is no place for it. */
const addObject = `${dropping}
local member, created, life = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local most, mostBytes, dropsOldest = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1'
local bytes = sizeOf(member)
local function sum() return sumAt(total) end
local function refuse(why)
  redis.call('UNLINK', valueOf(member))
  return { why, redis.call('ZCARD', all), string.format('%.0f', sum()) }
end
if bytes > mostBytes then return refuse('bytes') end
prune(owned(member))
while redis.call('ZCARD', owned(member)) >= most do
  if not dropsOldest or most == 0 then return refuse('count') end
  drop(redis.call('ZRANGE', owned(member), 0, 0)[1], owned(member))
end
if sum() + bytes > mostBytes and not dropsOldest then prune(all) end
while sum() + bytes > mostBytes do
  local oldest = redis.call('ZRANGE', all, 0, 0)[1]
  if not oldest then
    redis.call('SET', total, '0')
  elseif dropsOldest then
    drop(oldest, all)
  else
    return refuse('bytes')
  end
end
if redis.call('ZADD', all, created, member) == 1 then redis.call('INCRBY', total, string.format('%.0f', bytes)) end
redis.call('ZADD', owned(member), created, member)
if life > 0 then redis.call('PEXPIRE', valueOf(member), life) else redis.call('PERSIST', valueOf(member)) end
return { 'ok', redis.call('ZCARD', all), string.format('%.0f', sum()) }
`;

/** Removes an object. */
const removeObject = `${dropping}
drop(ARGV[2], all)
return { 'ok', redis.call('ZCARD', all), string.format('%.0f', sumAt(total)) }
`;

/** Gives a claim back, or keeps it for longer, if it is still that of who says so. */
const releaseClaim = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`;
const renewClaim = `if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0`;

/** All scripts, as the client takes them. */
export const scripts = {
  noteState: { lua: noteState, numberOfKeys: 3 },
  addObject: { lua: addObject, numberOfKeys: 2 },
  removeObject: { lua: removeObject, numberOfKeys: 2 },
  releaseClaim: { lua: releaseClaim, numberOfKeys: 1 },
  renewClaim: { lua: renewClaim, numberOfKeys: 1 },
} as const;

/** A client, or a pipeline of one, with the scripts as methods. */
export type Scripted = Record<keyof typeof scripts, (...keysAndArguments: (string | number)[]) => Promise<unknown>>;
