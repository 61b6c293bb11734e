-- A piece of a job's stream, in the step that appends it. It follows jobs.lua and goes before streams.lua.

-- → the code of a refusal, or nil
local function judge_job_piece(mark, now_ms)
  local attempt, n = mark[2], mark[6]
  local job = open_own(now_ms) and read_job(n)
  if not job then
    return nil -- of a job that is not known it is a stream like others
  end
  fresh(job)
  save_jobs()
  if is_over(job) then
    return 'stream_over'
  end
  return attempt < job[JOB.attempt] and 'stream_superseded' or nil
end

local ENDS_OF = {complete = 'succeeded', cancelled = 'cancelled'}

-- `mark` is as in `take_piece`; `body` has its seal.
local function job_piece(seq, mark, body, folded, now_ms)
  local attempt, outcome, n, failure = mark[2], mark[4], mark[6], mark[7]
  local job = open_own(now_ms) and read_job(n)
  if not job or is_over(job) or attempt < math.max(job[JOB.said], job[JOB.attempt]) then
    return
  end
  here.behind = seq
  local first, kept, was_folded = job[JOB.first], job[JOB.size], job[JOB.folded]
  local i = job[JOB.pieces] + 1
  if attempt > job[JOB.said] then
    drop_pieces(n, first, job[JOB.pieces])
    first, kept, was_folded = i, 0, 0
  end
  job[JOB.said], job[JOB.first], job[JOB.pieces] = attempt, first, i
  job[JOB.size] = kept + #body - (string.byte(body) == SEAL_MARK and SEALED_BYTES or SEAL_BYTES) + PIECE_BYTES
  job[JOB.folded] = (folded or was_folded == 1) and 1 or 0
  if job[JOB.size] > job[JOB.result_bytes_max] then
    drop_pieces(n, first, i)
    job[JOB.size], job[JOB.first] = 0, i + 1
    end_job(job, 'failed', RESULT_TOO_BIG)
  else
    redis.call('HSET', pieces_key, n .. '.' .. i, string.format('%.0f ', seq) .. body)
    if redis.call('PTTL', pieces_key) < 0 then
      expire_with_head(pieces_key)
    end
    if outcome ~= '' then
      end_job(job, ENDS_OF[outcome] or 'failed', failure)
    else
      put_job(job, false)
    end
  end
  save_jobs()
end
