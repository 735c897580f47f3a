"""Sessions, signing keys and the throttle of sign-ins."""

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The accounts engineer fills this in."""


def downgrade() -> None:
    """As above."""
