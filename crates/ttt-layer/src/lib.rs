//! Test-Time-Training layers: constant-size recurrent memory that learns while it reads. Not written yet.

#![forbid(unsafe_code)]
