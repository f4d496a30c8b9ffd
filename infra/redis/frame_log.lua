-- The only way a frame reaches a screen. One file, five verbs; the first argument names the verb.
-- Per turn: KEYS fence (hash e=epoch, n=last frame, p=what a sealer found, x=1 once the model finished) and log (list).
-- Frames are numbered from 1 in the log: element i of the list is frame i+1.

local function publish(channel, lines)
  if #lines > 0 then redis.call('PUBLISH', channel, table.concat(lines, '\30')) end
end

local function keep(fence, log, seconds)
  redis.call('EXPIRE', fence, seconds)
  redis.call('EXPIRE', log, seconds)
end

local verb = ARGV[1]

if verb == 'arm' then
  -- ARGV: epoch, ttl, channel, routed frame. Before any model call: from now on only this epoch may append.
  local held, epoch = redis.call('HGET', KEYS[1], 'e'), tonumber(ARGV[2])
  if held and tonumber(held) > epoch then return 'FENCED' end
  if held and tonumber(held) == epoch then return 'OK' end
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'e', epoch, 'n', 1, 'p', 'armed')
  redis.call('RPUSH', KEYS[2], ARGV[5])
  keep(KEYS[1], KEYS[2], ARGV[3])
  publish(ARGV[4], {ARGV[5]})
  return 'OK'
end

if verb == 'append' then
  -- Many turns in one call. Per turn ARGV: epoch, number of the first frame, finished flag, channel, count, frames…
  local answers, at = {}, 2
  for turn = 1, #KEYS / 2 do
    local fence, log = KEYS[2 * turn - 1], KEYS[2 * turn]
    local epoch, first, finished = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), ARGV[at + 2]
    local channel, count = ARGV[at + 3], tonumber(ARGV[at + 4])
    at = at + 5
    local f = redis.call('HMGET', fence, 'e', 'n')
    local held, n = tonumber(f[1] or '0'), tonumber(f[2] or '0')
    if held > epoch then
      answers[turn] = 'FENCED'
    elseif held < epoch or first > n + 1 then
      -- An older fence where ours was: Redis forgot ours, and a worker that thawed just then has armed again.
      answers[turn] = 'NOFENCE'
    else
      -- A repeated append (its answer was lost) is free: frames at or below n are already there.
      local fresh = {}
      for i = n + 2 - first, count do fresh[#fresh + 1] = ARGV[at + i - 1] end
      if #fresh > 0 then
        -- A log that is made here (Redis lost it alone) must not outlive its fence: nothing is kept for ever.
        if redis.call('RPUSH', log, unpack(fresh)) == #fresh then
          redis.call('EXPIRE', log, math.max(1, redis.call('TTL', fence)))
        end
        redis.call('HSET', fence, 'n', first + count - 1)
      end
      if finished == '1' then redis.call('HSET', fence, 'x', 1) end
      publish(channel, fresh)
      answers[turn] = 'OK'
    end
    at = at + count
  end
  return answers
end

if verb == 'rewrite' then
  -- ARGV: epoch, ttl, frames… The owner found its fence gone (Redis forgot) and the ledger says it still owns the turn.
  local held = redis.call('HGET', KEYS[1], 'e')
  if held and tonumber(held) > tonumber(ARGV[2]) then return 'FENCED' end
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'e', ARGV[2], 'n', #ARGV - 3, 'p', 'armed')
  for i = 4, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
  keep(KEYS[1], KEYS[2], ARGV[3])
  return 'OK'
end

if verb == 'seal' then
  -- ARGV: epoch, ttl. Nobody older may append from now on; tells what had become visible.
  local held, epoch = redis.call('HGET', KEYS[1], 'e'), tonumber(ARGV[2])
  if held and tonumber(held) > epoch then return {'STALE', '0'} end
  -- The owner that streamed is one epoch below. An older fence says no more of what was shown than none at all.
  local found = 'missing'
  if held and tonumber(held) == epoch - 1 then
    found = 'armed'
  elseif held and tonumber(held) == epoch then
    found = redis.call('HGET', KEYS[1], 'p') or 'missing'
  end
  redis.call('HSET', KEYS[1], 'e', epoch, 'p', found)
  redis.call('HSETNX', KEYS[1], 'n', 0)
  keep(KEYS[1], KEYS[2], ARGV[3])
  local answer = {found, redis.call('HGET', KEYS[1], 'x') or '0'}
  for _, line in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do answer[#answer + 1] = line end
  return answer
end

if verb == 'finish' then
  -- ARGV: epoch, ttl, channel, frames 1… of a turn the ledger has ended. Adds what the log lacks.
  local held, epoch = redis.call('HGET', KEYS[1], 'e'), tonumber(ARGV[2])
  if held and tonumber(held) > epoch then return 'FENCED' end
  local n = tonumber(redis.call('HGET', KEYS[1], 'n') or '0')
  local fresh = {}
  for i = n + 1, #ARGV - 4 do fresh[#fresh + 1] = ARGV[i + 4] end
  redis.call('HSET', KEYS[1], 'e', epoch, 'n', math.max(n, #ARGV - 4))
  if #fresh > 0 then redis.call('RPUSH', KEYS[2], unpack(fresh)) end
  keep(KEYS[1], KEYS[2], ARGV[3])
  publish(ARGV[4], fresh)
  return 'OK'
end

return redis.error_reply('unknown verb')
