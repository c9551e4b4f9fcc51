-- Removes a blob, unless it is too late: whoever deletes may have stood still, and others have the lock.
--
-- KEYS: the list of blobs, the blob. ARGV: its digest, the second from which on it is too late.
-- Returns how many there were, -1 if it is too late.
if tonumber(redis.call('TIME')[1]) >= tonumber(ARGV[2]) then
    return -1
end
redis.call('ZREM', KEYS[1], ARGV[1])
return redis.call('UNLINK', KEYS[2])
