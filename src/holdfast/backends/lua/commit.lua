-- One commit of one session, or several that were planned one after the other: all of it or nothing.
--
-- KEYS: the head, the log, then the lists of its shard: by change, by time; if it changes more of them also those by id
--       and by tag, and the kinds; for a new head also the id of the store that the shard belongs to, for one that
--       forgets entries the logs that do.
-- ARGV: 1 the stamp of the head that was planned on ('' for none), 2 the head to write ('' to look only),
--       3 'anew' to begin the log anew, or behind which place entries are to be forgotten ('' if none are),
--       4 the member of the list by change, 5 the channel to tell,
--       6 how many ids must not be in the log, 7 fields and values of the log, 8 places to leave, 9 places to take;
--       then these lists, a place being the number of its key and the member; for a new head its kind and the store's id.
-- Returns 1 if it is written; else what is there: {head, bounds, hidden, id, its entry, ...}, or, if the shard is not
-- known to be the store's, whose it is, '' for nobody's: all may have been deleted, and another store begun.
local call, KEYS, ARGV = redis.call, KEYS, ARGV
local STAMP, MOST = 20, 4000
local ids = 10
local fields = ids + ARGV[6]
local leave = fields + ARGV[7]
local take = leave + ARGV[8]
local behind = take + ARGV[9]

local stamp = call('GETRANGE', KEYS[1], 0, STAMP - 1)
if ARGV[2] ~= '' and stamp == string.sub(ARGV[2], 1, STAMP) then
    -- The answer to this very commit was lost. A write, so that its durability can be waited for.
    call('SETRANGE', KEYS[1], 0, stamp)
    return 1
end

local known, trim = {}, nil
for first = ids, fields - 1, MOST do
    local last = math.min(first + MOST, fields) - 1
    for n, seq in ipairs(call('HMGET', KEYS[2], unpack(ARGV, first, last))) do
        if seq then  -- that of an entry that is forgotten, and will be removed, is free
            trim = trim or tonumber(string.match(call('HGET', KEYS[2], 'm') or '', '^%d+') or 0)
        end
        if seq and tonumber(seq) > trim then
            known[#known + 1] = ARGV[first + n - 1]
            known[#known + 1] = seq
        end
    end
end
if ARGV[2] == '' or stamp ~= ARGV[1] or #known > 0 then
    local log = call('HMGET', KEYS[2], 'm', 'v')
    local there = {call('GET', KEYS[1]), log[1], log[2]}
    for n, value in ipairs(known) do
        there[n + 3] = value
    end
    return there
end

local owner = ARGV[1] == '' and (call('GET', KEYS[8]) or '')
if owner and owner ~= ARGV[behind + 1] then
    return owner
end

-- The first write is one that a server without memory refuses, before anything is changed. The number of a change is
-- the time, so that none comes again after a server lost its last moments.
local clock = call('TIME')
local newest = call('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')
local number = math.max(clock[1] * 1000000 + clock[2], (tonumber(newest[2]) or 0) + 1)
call('ZADD', KEYS[3], string.format('%.0f', number), ARGV[4])
for n = take, behind - 1, 2 do
    call('ZADD', KEYS[tonumber(ARGV[n])], 0, ARGV[n + 1])
end
for n = leave, take - 1, 2 do
    call('ZREM', KEYS[tonumber(ARGV[n])], ARGV[n + 1])
end
if ARGV[1] == '' then
    call('SADD', KEYS[7], ARGV[behind])
end

if ARGV[3] == 'anew' then
    call('UNLINK', KEYS[2])
elseif ARGV[3] ~= '' then
    if not call('HGET', KEYS[2], 't') then
        call('HSET', KEYS[2], 't', ARGV[3])
    end
    call('SADD', KEYS[8], ARGV[4])
end
for first = fields, leave - 1, MOST do
    call('HSET', KEYS[2], unpack(ARGV, first, math.min(first + MOST, leave) - 1))
end
call('SET', KEYS[1], ARGV[2])
-- A hint, by what is in no other stamp: who may not use channels has committed all the same.
redis.pcall('PUBLISH', ARGV[5], string.sub(ARGV[2], 1, 8))
return 1
