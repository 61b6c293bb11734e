"""The dialect `deepstream` of video-analytics apps, as `docs/deepstream.md` describes it."""
