//! Peers that lie, break off, flood and hang: what they are told, what gets through, what it costs everybody else.

mod answers;
mod cgroup;
mod floods;
mod frames;
mod http2;
mod machine;
mod origin;
mod process;
mod requests;
mod silent;
mod slow;
