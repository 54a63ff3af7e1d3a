//! stub
use std::path::Path;
use holdfast_wire::id::DeviceId;
/// stub
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct IdentityError;
/// stub
#[derive(Debug)]
pub struct Identity;
impl Identity {
    /// stub
    pub fn load(_d: &Path, _id: Option<DeviceId>) -> Result<Self, IdentityError> { Ok(Self) }
}
