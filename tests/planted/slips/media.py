"""Slips in the media of blobs: whole objects or none, threads that a cancel leaves behind, and what S3 is asked and believed."""

from tests.planted.bug import Bug

_THREADS = "signald/blobs/threads.py"
_SPOOL = "signald/blobs/spool.py"
_DIRECTORY = "signald/blobs/directory.py"
_S3 = "signald/blobs/s3.py"
_CHECKS = "signald/config/checks.py"

_OF_THREADS = "tests/blobs/test_threads.py::"
_OF_DIRECTORY = "tests/blobs/test_directory.py::"
_OF_S3 = "tests/blobs/test_s3.py::"

MEDIA = (
    Bug(
        "abandoned-thread-counted-for-ever",
        _THREADS,
        "_Call._leave_place",
        "self._threads.counts.abandoned -= 1",
        "self._threads.counts.abandoned_total -= 1",
        "bounded",
        "A thread that its caller has left counts as abandoned when it has ended.",
        (_OF_THREADS + "test_a_cancelled_caller_returns_at_once_and_its_thread_is_counted",),
    ),
    Bug(
        "object-of-a-caller-that-has-gone-stays",
        _THREADS,
        "_Call._abandon",
        "if self._result is not None:",
        "if self._result is not None and self._undo is None:",
        "whole-blob",
        "An upload that is cancelled in the moment of its end leaves an object that no record names.",
        (_OF_THREADS + "test_what_succeeds_without_its_caller_is_undone",),
    ),
    Bug(
        "upload-of-a-living-node-swept",
        _SPOOL,
        "_remove_if_left",
        "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_UN)",
        "whole-blob",
        "A node that starts removes the uploads of the nodes that share its directory.",
        (_OF_DIRECTORY + "test_what_a_killed_upload_leaves_is_swept_and_that_of_a_living_one_stays",),
    ),
    Bug(
        "link-followed-out-of-the-directory",
        _DIRECTORY,
        "DirectoryMedia.piece",
        "os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC",
        "os.O_RDONLY | os.O_CLOEXEC",
        "nobody-hurts",
        "A link in the directory of media gives out any file that signald can read.",
        (_OF_DIRECTORY + "test_a_link_in_the_directory_is_no_object",),
    ),
    Bug(
        "volume-that-is-gone-loses-its-objects",
        _DIRECTORY,
        "DirectoryMedia.piece",
        "self.settings.spool.is_dir()",
        "self._directory.is_dir()",
        "whole-blob",
        "While the volume is not mounted every object counts as lost.",
        (_OF_DIRECTORY + "test_a_volume_that_is_gone_loses_no_object",),
    ),
    Bug(
        "absent-bucket-loses-its-objects",
        _S3,
        "obstore_errors",
        "'NoSuchBucket' in str(error)",
        "'NoSuchBucket' == str(error)",
        "whole-blob",
        "A bucket with a wrong name makes every object count as lost.",
        (_OF_S3 + "test_what_is_missing_and_what_is_away",),
    ),
    Bug(
        "proxy-of-the-environment-asked",
        _S3,
        "hidden_environment",
        "_read_by_obstore.fullmatch(name)",
        "name.startswith('AWS_')",
        "nobody-hurts",
        "Voice messages go through a proxy that was meant for something else.",
        (_OF_S3 + "test_a_proxy_of_the_environment_is_not_used_and_stays_for_others",),
    ),
    Bug(
        "answer-of-s3-logged",
        _S3,
        "first_line",
        "told[0] if told else line",
        "line",
        "nobody-hurts",
        "The id of the access key, which S3 repeats in its answer, reaches the log.",
        (_OF_S3 + "test_an_error_is_one_line_without_a_key",),
    ),
    Bug(
        "large-uploads-side-by-side",
        _S3,
        "S3Media.threads_for",
        "size <= SMALL_BYTES",
        "size <= 100 * SMALL_BYTES",
        "bounded-memory",
        "Twenty uploads to S3 hold twenty times 5 MiB.",
        (_OF_S3 + "test_twenty_at_once_hold_less_than_eight_mib",),
    ),
    Bug(
        "half-a-credential-of-s3-taken",
        _CHECKS,
        "_s3",
        "blobs.credentials == 'keys' and missing",
        "blobs.credentials == 'keys' and len(missing) == len(names)",
        "nobody-hurts",
        "With half a credential S3 is asked all the same, and answers 403 to each upload.",
        ("tests/test_config.py::test_half_a_credential_of_s3_is_named",),
    ),
)
