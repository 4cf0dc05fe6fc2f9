//! What every client gets of the edge before anybody asks who it is: connections, sizes, times, memory and processor.

pub mod admission;
mod door;
mod frames;
mod head;
pub mod holdings;
mod lag;
mod last_words;
pub mod memory;
mod received;
mod sent;
mod upload;
mod watched;

pub use self::door::{BeforeTls, Door, answer_is_torn, follow, head_is_read};
pub use self::head::Largest;
pub use self::sent::Answer;
pub use self::upload::Upload;
